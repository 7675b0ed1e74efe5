//! Stages that bring something in from outside: models, requests, templates, second moments, updates.

pub mod corpus;
pub mod demo;
pub mod hub;
pub mod inline_requests;
mod judge_moments;
pub mod load_model;
pub mod load_moments;
pub mod load_requests;
pub mod load_update;
pub mod select;
pub mod templates;
