//! What the producer and the workers of Imagewright agree on.
//!
//! Reading order: [`arch`] and [`job`] (what may be asked), [`wire`] (bytes to jobs and back), [`event`] (what is said
//! about a job), [`queue`] (the seam and its two backends), [`openstack`] (one cloud), [`source`] (where image bytes
//! come from), [`store`] (the transfer and retention).

pub mod arch;
pub mod backoff;
pub mod event;
mod http_time;
pub mod job;
pub mod openstack;
pub mod policy;
pub mod queue;
pub mod source;
pub mod status;
pub mod store;
pub mod telemetry;
pub mod wire;
pub mod yaml;
