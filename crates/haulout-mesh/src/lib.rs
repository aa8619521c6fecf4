//! mDNS discovery, QUIC transport and the wire protocol between agents.
