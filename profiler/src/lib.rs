//! stallscope finds where the worker threads of async runtimes and thread pools sleep
//! synchronously.
//!
//! Data flows one way. The rooms, in reading order:
//!
//! | room | what it does | never |
//! |---|---|---|
//! | [`target`] | which process, which threads, which mappings | parses ELF, judges runtimes |
//! | [`unwind`] | registers and stack bytes to frames | touches `/proc`, maps or aya |
//! | [`cache`] | unwind tables kept between recordings | reads what another user could have written, fails |
//! | [`kernel`] | everything aya | symbolizes, formats, decides policy |
//! | [`recording`] | timestamped facts in a file | guesses names, keeps classes or floats |
//! | [`symbols`] | addresses to names | drops a frame |
//! | [`runtime`] | what a wait means | does I/O, adds anything up |
//! | [`analysis`] | sums, orderings, windows | makes display strings, knows file formats |
//! | [`render`] | a report to bytes | adds meaning, opens files |
//!
//! Two pipelines know many rooms: [`record`] (target to recording) and [`report`] (recording to
//! bytes); [`snapshot`] is both for a single moment. [`units`], [`failure`] and [`terminal`] are known to all.

pub mod failure;
pub mod terminal;
pub mod units;

pub mod analysis;
pub mod cache;
pub mod kernel;
pub mod recording;
pub mod render;
pub mod runtime;
pub mod symbols;
pub mod target;
pub mod unwind;

pub mod record;
pub mod report;
pub mod snapshot;

pub mod cli;
pub mod demo;
pub mod doctor;
pub mod inspect;
