//! What instances at work will bring, so that no two do the same at once.

use std::collections::{BTreeSet, HashMap};

use palinode_fingerprint::{Digest, Key};

/// Something that only one instance at a time may work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// The result under a key.
    Result(Key),
    /// Contents that were lost and that are made again.
    Contents(Digest),
}

/// Who holds what, and who waits for it.
///
/// When a claim is let go of, one waiting instance is woken, not all: it most often finds its result in the store, or holds the claim
/// itself, and the others would only have been woken to wait again. Whoever is woken and does not hold the claim passes it on
/// ([`Claims::let_go`]), so that none is forgotten.
#[derive(Debug, Default)]
pub struct Claims {
    held: HashMap<Claim, usize>,
    waiting: HashMap<Claim, BTreeSet<usize>>,
}

impl Claims {
    /// The first of these claims that another instance holds.
    pub fn held_by_another(&self, instance: usize, claims: &[Claim]) -> Option<Claim> {
        claims.iter().copied().find(|claim| self.held.get(claim).is_some_and(|holder| *holder != instance))
    }

    /// Gives these claims to an instance.
    pub fn hold(&mut self, instance: usize, claims: &[Claim]) {
        self.held.extend(claims.iter().map(|claim| (*claim, instance)));
    }

    /// Lets an instance wait until a claim is let go of.
    pub fn wait(&mut self, instance: usize, claim: Claim) {
        self.waiting.entry(claim).or_default().insert(instance);
    }

    /// Takes from an instance those of its claims that it holds. Gives the instances that are woken: for each claim that nobody holds
    /// now, the first that waits for it.
    pub fn let_go(&mut self, instance: usize, claims: &[Claim]) -> Vec<usize> {
        let mut woken = Vec::new();
        for claim in claims {
            if self.held.get(claim) == Some(&instance) {
                self.held.remove(claim);
            }
            if self.held.contains_key(claim) {
                continue;
            }
            if let Some(waiting) = self.waiting.get_mut(claim) {
                woken.extend(waiting.pop_first());
                if waiting.is_empty() {
                    self.waiting.remove(claim);
                }
            }
        }
        woken
    }

    /// Forgets who waits.
    pub fn clear_waiting(&mut self) {
        self.waiting.clear();
    }
}
