//! Who has what, whom to ask, whose turn it is: state machines without I/O.
