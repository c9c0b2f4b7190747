//! Addresses to names, inline frames kept. Never drops a frame: absence is data.
