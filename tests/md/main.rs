//! Linux md's format, with Linux as the judge: golden images that mdadm and the kernel made, and
//! what they said of them.

mod assembly;
mod bitmap;
mod content;
mod examine;
mod flips;
mod golden;
mod linux;
mod ppl;
mod words;
