//! render: being written.
