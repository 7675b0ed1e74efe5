//! Kinds of artifacts as types, and ports that say by type what they take.
//!
//! A kind is defined once, where its facts are a struct: what a result says of itself, as it is stored, and what is known of it before
//! anything runs. Stages read and write these structs. The engine itself sees a name and a JSON value and never looks inside.

use std::fmt;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The name of a kind of artifact, such as "model" or "moments"; ports accept kinds.
pub type ArtifactKind = &'static str;

/// An input of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// The name used under `inputs:`.
    pub name: &'static str,
    /// The artifact kinds that fit.
    pub accepts: &'static [ArtifactKind],
    /// Whether the stage cannot do without it.
    pub required: bool,
    /// One line for lists.
    pub doc: &'static str,
}

/// A kind of artifact.
pub trait Kind: 'static {
    /// Its name, such as "model" or "moments": part of the format of results.
    const NAME: ArtifactKind;
    /// What a result says of itself. A format: what an earlier version stored must still read, and the same result must have the
    /// same fields, since a result's digest covers them.
    type Facts: Serialize + DeserializeOwned;
    /// What is known before anything runs; the default where nothing is. It is stored nowhere.
    type Planned: Serialize + DeserializeOwned + Default;
}

/// What a port takes: a kind, or whatever is common to several of them.
pub trait Accept: 'static {
    /// The kinds that fit.
    const KINDS: &'static [ArtifactKind];
    /// What is read of an artifact of one of them.
    type Facts;
    /// What is read of a description of one of them; the default where nothing is known.
    type Planned: Default;

    /// The facts of an artifact of the kind `kind`.
    ///
    /// # Errors
    /// Where `meta` is not what such an artifact has.
    fn facts(kind: &str, meta: &Value) -> serde_json::Result<Self::Facts>;

    /// What a stage that yields `kind` said before anything runs.
    fn planned(kind: &str, said: &Value) -> Self::Planned;
}

impl<K: Kind> Accept for K {
    const KINDS: &'static [ArtifactKind] = &[K::NAME];
    type Facts = K::Facts;
    type Planned = K::Planned;

    fn facts(_: &str, meta: &Value) -> serde_json::Result<Self::Facts> {
        K::Facts::deserialize(meta)
    }

    fn planned(_: &str, said: &Value) -> Self::Planned {
        // `null` is what a stage says that knows nothing.
        K::Planned::deserialize(said).unwrap_or_default()
    }
}

/// An input of a stage with the type of what it takes; [`PortOf::port`] is what the engine lists.
pub struct PortOf<A> {
    /// The name used under `inputs:`.
    pub name: &'static str,
    required: bool,
    doc: &'static str,
    takes: PhantomData<fn() -> A>,
}

impl<A: Accept> PortOf<A> {
    /// A port that the stage cannot do without; `doc` is one line of help.
    pub const fn required(name: &'static str, doc: &'static str) -> Self {
        Self { name, required: true, doc, takes: PhantomData }
    }

    /// A port that may stay unconnected.
    pub const fn optional(name: &'static str, doc: &'static str) -> Self {
        Self { name, required: false, doc, takes: PhantomData }
    }

    /// Without the type.
    pub const fn port(self) -> Port {
        Port { name: self.name, accepts: A::KINDS, required: self.required, doc: self.doc }
    }
}

impl<A> Clone for PortOf<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for PortOf<A> {}

impl<A> fmt::Debug for PortOf<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PortOf").field(&self.name).finish()
    }
}
