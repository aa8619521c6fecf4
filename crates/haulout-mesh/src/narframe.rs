//! narframe
