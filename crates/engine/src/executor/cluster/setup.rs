//! What is looked at before the first job: the cluster, and whether it has what the profile asks.

use std::path::Path;

use super::clerk::slurm as call;
use super::list::JOBS;
use super::profile::{Asked, Light, Profile, unknown_kind};
use super::slurm::{self, Limits, Submission};
use crate::catalogue::Catalogue;
use palinode_error::{Error, ErrorKind, did_you_mean};
use palinode_pipeline::{Cores, Pipeline, Resources};

/// A cluster, and how it is used.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The profile.
    pub profile: Profile,
    /// The program that works there, with its first arguments.
    pub program: Vec<String>,
    /// What the cluster allows.
    pub(crate) limits: Limits,
}

/// What was found of a cluster, line by line.
pub type Looked = Vec<(String, String)>;

impl Cluster {
    /// A cluster that answers.
    ///
    /// # Errors
    /// When Slurm's programs are not there, or its controller does not answer.
    pub fn find(profile: Profile, program: Vec<String>) -> Result<Self, Error> {
        let out = call("scontrol", &["show", "config"], None).map_err(|error| Error {
            kind: ErrorKind::Usage,
            message: format!("no cluster: {}", error.message),
            ..error
        })?;
        Ok(Self { profile, program, limits: slurm::limits(&out) })
    }

    /// Whether a stage that needs so little runs beside whoever submits.
    pub(crate) fn is_here(&self, resources: &Resources) -> bool {
        self.profile.light == Light::Here && resources.cores == Cores::Count(0)
    }

    /// What is known of it, for people.
    pub fn look(&self) -> Looked {
        let line = |name: &str, found: String| (name.to_owned(), found);
        let Limits { array, accounts, cluster, version, remembers } = &self.limits;
        let mut lines = vec![
            line("cluster", format!("{cluster}, Slurm {version}")),
            line("largest array", format!("{array} jobs")),
            line(
                "accounts",
                if *accounts { "kept".into() } else { "none: what the queue has forgotten is waited for".into() },
            ),
            line("remembers", format!("jobs that are over, for {remembers} s")),
        ];
        let format = "%R|%a|%l|%D|%c|%m|%G";
        for text in call("sinfo", &["--noheader", "--format", format], None).unwrap_or_default().lines() {
            if let [name, up, time, nodes, cores, memory, gres] = text.split('|').collect::<Vec<_>>()[..] {
                let found = format!("{up}, {nodes} nodes with {cores} cores, {memory} MiB, {gres}; jobs up to {time}");
                lines.push(line(&format!("partition {name}"), found));
            }
        }
        lines
    }

    /// Whether the cluster takes a job of the profile, which is not submitted.
    pub fn try_out(&self) -> Looked {
        let stages = self.profile.stages.keys().map(|name| ("", name.as_str()));
        let kinds = self.profile.kinds.keys().map(|name| (name.as_str(), ""));
        let all = [("", "")].into_iter().chain(kinds).chain(stages);
        all.map(|(kind, stage)| {
            let asked = self.profile.asked(kind, stage, &Resources::LIGHT, 0);
            let script = self.script(&Asked { parts: Some(1), ..asked }, "check", Path::new("/tmp"), Path::new("/tmp"));
            let found = match call("sbatch", &["--test-only"], Some(&script)) {
                Ok(_) => "the cluster takes them".to_owned(),
                Err(error) => error.message,
            };
            (format!("jobs {}", [kind, stage].concat()).trim_end().to_owned(), found)
        })
        .collect()
    }

    /// The distinct jobs of a pipeline's stages, each with the stages that ask it.
    pub fn asked(&self, pipeline: &Pipeline, chosen: impl Fn(usize) -> bool) -> Vec<(Asked, Vec<String>)> {
        let mut all: Vec<(Asked, Vec<String>)> = Vec::new();
        for (at, instance) in pipeline.instances.iter().enumerate().filter(|(at, _)| chosen(*at)) {
            let _ = at;
            let resources = instance.kind.resources(&instance.params);
            if self.is_here(&resources) {
                continue;
            }
            let asked = self.profile.asked(instance.kind.info().name, &instance.stage, &resources, 0);
            match all.iter_mut().find(|(known, _)| *known == asked) {
                Some((_, stages)) => stages.push(instance.name.clone()),
                None => all.push((asked, vec![instance.name.clone()])),
            }
        }
        all
    }

    /// The script of jobs like these, before they have a place in a run.
    pub fn script(&self, asked: &Asked, run: &str, folder: &Path, store: &Path) -> String {
        let jobs = store.join("runs").join(run).join(JOBS);
        slurm::script(&Submission {
            name: &format!("{run}.1"),
            run,
            count: asked.parts.unwrap_or(1).max(1),
            list: &jobs.join("1.json"),
            log: &jobs.join("1-%a.log"),
            program: &self.program,
            folder,
            asked,
            save: self.profile.waits.save,
        })
    }

    /// Checks that the cluster has what all jobs of a pipeline ask.
    ///
    /// # Errors
    /// With the first of what it lacks, in the cluster's own words, and the stages that ask it.
    pub fn check(
        &self,
        pipeline: &Pipeline,
        catalogue: &Catalogue,
        chosen: impl Fn(usize) -> bool,
    ) -> Result<(), Error> {
        let usage = |message: String| Error::new(ErrorKind::Usage, message);
        if let Some(wrong) = unknown_kind(&self.profile, &catalogue.names().collect::<Vec<_>>()) {
            let hint = wrong.hint.clone();
            let error = usage(format!("the profile's `kinds`: {}", wrong.message));
            return Err(match hint {
                Some(hint) => error.hint(hint),
                None => error,
            });
        }
        let partitions = call("sinfo", &["--noheader", "--format", "%R"], None).unwrap_or_default();
        for (asked, stages) in self.asked(pipeline, chosen) {
            let who = match stages.as_slice() {
                [one] => format!("`{one}`"),
                [first, rest @ ..] => format!("`{first}` and {} more", rest.len()),
                [] => continue,
            };
            if let Some(partition) = &asked.partition
                && !partition.split(',').all(|one| partitions.lines().any(|known| known == one))
            {
                let known: Vec<&str> = partitions.lines().collect();
                let error =
                    usage(format!("the jobs of {who} ask for the partition `{partition}`, which the cluster lacks"));
                let near = did_you_mean(partition, known.iter().copied());
                return Err(error.hint(near.unwrap_or_else(|| format!("it has {}", known.join(", ")))));
            }
            let one = Asked { parts: Some(1), ..asked };
            let folder = pipeline.base.canonicalize().unwrap_or_else(|_| pipeline.base.clone());
            let script = self.script(&one, "check", &folder, Path::new("/tmp"));
            match call("sbatch", &["--test-only"], Some(&script)) {
                Ok(_) => {}
                // A queue that is full is no mistake.
                Err(error) if slurm::may_pass(&error.message) => {}
                Err(error) => {
                    let message = format!("the cluster cannot run the jobs of {who}: {}", error.message);
                    return Err(usage(message).hint(format!(
                        "the profile asks for partition {}, time {}, memory {}, cores {}, GPUs {}",
                        one.partition.as_deref().unwrap_or("by default"),
                        one.time_words(),
                        one.memory.map_or_else(|| "by default".to_owned(), palinode_error::size),
                        one.cores.map_or_else(|| "by default".to_owned(), |cores| cores.to_string()),
                        one.gpus.as_deref().unwrap_or("none"),
                    )));
                }
            }
        }
        Ok(())
    }
}
