//! Every step of an edit against numbers of the authors' own code. README.md says how to run this and what is compared.

mod care;
mod data;
mod edit;
mod evaluation;
mod followups;
mod model;
mod pipelines;
mod preservation;
mod reference;
mod solve;
