//! The HTTP substituter on localhost and the agent's control interface.
//!
//! [`Substituter`] is what the gateway asks of the rest of the agent, [`api`] what the control interface answers.

pub mod api;
mod substituter;

pub use substituter::{Cut, LateSubstituter, NarBody, Substituter};
