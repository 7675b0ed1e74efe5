//! What streaming a model's blocks takes, as a stage says it when it ends.

use palinode_engine::{StageContext, size};
use palinode_model::{Decoder, Streaming};

/// Has the stage say at its end what it read of the files of a model whose blocks are streamed. Stages that use the model at the same time
/// count each other's.
pub fn say_at_end(cx: &StageContext, decoder: &Decoder) {
    let Some(before) = decoder.streaming() else { return };
    let (decoder, disk) = (decoder.clone(), from_disk());
    cx.say_at_end("streaming", move || {
        let now = decoder.streaming()?;
        let blocks = read(&before, &now);
        let of_it =
            from_disk().zip(disk).map(|(now, then)| format!(", {} from the disk", size(now.saturating_sub(then))));
        (blocks > 0).then(|| {
            let bytes = size(now.bytes - before.bytes);
            format!("{blocks} blocks were read: {bytes} of the model's files{}", of_it.unwrap_or_default())
        })
    });
}

fn read(before: &Streaming, now: &Streaming) -> u64 {
    now.reads.iter().sum::<u64>() - before.reads.iter().sum::<u64>()
}

/// Bytes that this process had read from disks; what the system had in its cache is not among them. None where the system does not say.
fn from_disk() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/io").ok()?;
    text.lines().find_map(|line| line.strip_prefix("read_bytes:"))?.trim().parse().ok()
}
