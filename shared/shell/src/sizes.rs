//! The choice of a session's VM size if none is named, and the reason for it.

use crate::{
    Fault, Ports,
    admission::{self, Counted},
};
use contract::{FlowRef, row::UsedRow, workspace::WorkspaceSettings};
use lifecycle::{
    Code, Failure,
    quota::Use,
    session::Settings,
    size::{self, Offer, Size, Used},
};

/// Puts a VM size into settings for which neither a command, a file, nor the workspace names one,
/// and how it was chosen. A session on a compute instance has the instance's.
///
/// # Errors
///
/// As [`Ports`].
pub(crate) async fn choose(
    ports: &impl Ports,
    flow: &FlowRef,
    settings: &mut Settings,
    of: &WorkspaceSettings,
) -> Result<(), Fault> {
    if settings.size.is_named() || settings.compute.value.is_some() {
        return Ok(());
    }
    let used = ports.load_used(&flow.key()).await?.unwrap_or_default();
    let past: Vec<Used> = used.runs.iter().map(|run| run.used).collect();
    let quotas = admission::load_quotas(ports, of, &flow.workspace, &flow.owner).await?;
    let is_free = |size: &Size| {
        let wanted = Use {
            lineage: String::new(),
            size: size.name.clone(),
            compute: String::new(),
            since: None,
        };
        let has_room = |counted: &Counted| counted.usage.has_room(&wanted, &counted.quota, &flow.workspace);
        quotas.iter().all(|counted| has_room(counted).is_ok())
    };
    let choice = size::choose(&past, ports.offer(), is_free);
    settings.size.value = choice.size;
    settings.choice = choice.why;
    Ok(())
}

/// The failure of a session or an instance of this VM size, if there is none here. Whether a
/// machine that is there has a GPU, only its driver knows.
pub(crate) fn refuse_size(ports: &impl Ports, name: &str) -> Option<Failure> {
    let Some(size) = size::size(name) else {
        return Some(size::no_such_size(name));
    };
    let gpu = size.gpu.filter(|_| ports.offer() == Offer::Ec2)?;
    let message = format!(
        "The VM size {name} has {} {}, and no instance with a GPU is ordered here. Choose a VM size without one.",
        gpu.count, gpu.model
    );
    Some(Failure::new(Code::ComputeNoGpu, message))
}

/// Keeps what a run used, for the choice of its flow's next VM size. A run that comes twice counts
/// once.
///
/// # Errors
///
/// As [`Ports`].
pub async fn record_use(ports: &impl Ports, flow: &str, run: &str, used: Used) -> Result<(), Fault> {
    let kept: UsedRow = ports.load_used(flow).await?.unwrap_or_default();
    match kept.with(run, used) {
        Some(row) => ports.keep_used(flow, &row).await,
        None => Ok(()),
    }
}
