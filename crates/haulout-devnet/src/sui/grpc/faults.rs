//! What a node can be told to do wrong.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Faults of one node. Cloning gives another handle to the same.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<FaultState>>);

/// The faults of a node, all off by default. Whatever it does wrong, the chain stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultState {
    /// Answers nothing: every call is `UNAVAILABLE`.
    pub gone: bool,
    /// Shows the chain as it was at this checkpoint.
    pub stale_at: Option<u64>,
    /// Has nothing below this checkpoint.
    pub pruned_below: Option<u64>,
    /// Has no proof service (as nodes before protocol 128).
    pub no_proofs: bool,
    /// Flips a bit in every object's contents.
    pub forged_object: bool,
    /// Gives every object a version one too high.
    pub wrong_version: bool,
    /// Says that somebody else owns every object.
    pub wrong_owner: bool,
    /// Answers with the clock whatever object is asked for.
    pub other_object: bool,
    /// Leaves the end of Merkle paths and of checkpoint contents out.
    pub truncated_proof: bool,
    /// Changes a digit of checkpoints' signatures.
    pub bad_signature: bool,
    /// Serves the same history signed by validators of an attacker's. What is sent to the node
    /// meanwhile happens there, and is lost when it comes back.
    pub fork: bool,
}

impl Faults {
    /// The present faults.
    #[must_use]
    pub fn get(&self) -> FaultState {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes them.
    pub fn set(&self, change: impl FnOnce(&mut FaultState)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// No faults.
    pub fn clear(&self) {
        self.set(|state| *state = FaultState::default());
    }
}
