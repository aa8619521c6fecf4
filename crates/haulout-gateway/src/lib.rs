//! The HTTP substituter on localhost and the agent's control interface.
