//! How a recording lies on disk.
