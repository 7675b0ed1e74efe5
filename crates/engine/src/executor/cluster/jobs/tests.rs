//! The state machine, told what Slurm printed: real output where a real Slurm was seen to print it (22.05.8), made up where it says so.

use std::fmt::Write as _;

use super::super::slurm;
use super::*;

fn at(seconds: f64) -> Moment {
    Duration::from_secs_f64(seconds)
}

/// What happens, and at which second: `add`, `sent`, `squeue …` (lines), `down`, `sacct …`, `done N`, `stopped N units`, `failed N`,
/// `cancel`, `tick`.
fn check(accounts: bool, story: &[(f64, &str)], expect: &[&str]) {
    let mut jobs = Jobs::new(Waits::default(), accounts, 2);
    let mut submissions = 0;
    let mut found = Vec::new();
    for (second, what) in story {
        let (word, rest) = what.split_once(' ').unwrap_or((what, ""));
        let name = |number: &str| Name { submission: format!("r.{number}"), index: 0 };
        let event = match word {
            "add" => Event::Add(0),
            // A job that an earlier coordinator has sent twice.
            "adopt" => {
                submissions = 2;
                Event::Adopt(0, ["1", "2"].map(|number| (name(number), Some(format!("{number}_0")))).to_vec())
            }
            "sent" => Event::Sent(format!("r.{submissions}"), format!("{submissions}")),
            "refused" => {
                let error = Error::new(ErrorKind::Limit, rest);
                Event::NotSent(format!("r.{submissions}"), Box::new(error), slurm::may_pass(rest))
            }
            "squeue" => Event::View(slurm::queue(rest)),
            "down" => Event::NoView("Unable to contact slurm controller".to_owned()),
            "sacct" => Event::Accounts(slurm::accounts(rest, &|id| Some(name(id.strip_suffix("_0")?)))),
            "done" => Event::Answer(name(rest), Said::Done),
            "stopped" => {
                let (number, units) = rest.split_once(' ').unwrap();
                Event::Answer(name(number), Said::Stopped { units: units.parse().unwrap() })
            }
            "failed" => Event::Answer(name(rest), Said::Failed(Box::new(Error::numerical("singular")))),
            "cancel" => Event::Cancel(0, Cancel::Finish),
            "tick" => Event::Tick,
            other => panic!("{other}"),
        };
        for command in jobs.on(at(*second), event) {
            let mut line = format!("{second} ");
            let _ = match command {
                Command::Send(send) => {
                    submissions += 1;
                    jobs.sending(&format!("r.{submissions}"), &[0]);
                    write!(line, "send with {} doublings", send[0].1)
                }
                // Each is said, and leads to another submission.
                Command::View | Command::GivenUp(..) => continue,
                Command::Accounts(ids) => write!(line, "look up {}", ids.join(",")),
                Command::Stop(ids, how) => write!(line, "stop {} {how:?}", ids.join(",")),
                Command::Began(_, machine) => write!(line, "began on {machine}"),
                Command::Ended(_, _, Ok(())) => write!(line, "done"),
                Command::Ended(_, _, Err((error, lost))) => {
                    write!(line, "{}: {}", if lost { "lost" } else { "failed" }, error.message)
                }
                Command::Say(_, message) => write!(line, "say: {message}"),
            };
            found.push(line);
        }
    }
    assert_eq!(found, expect, "{story:?}");
}

#[test]
fn a_job_is_done_when_it_says_so() {
    let story = [
        (0.0, "add"),
        (0.1, "sent"),
        (2.0, "squeue 1_0|PENDING||Resources|r.1"),
        (4.0, "squeue 1_0|RUNNING|n1|None|r.1"),
        // Over, and its answer is seen late.
        (9.0, "squeue 1_0|COMPLETED|n1|None|r.1"),
        (40.0, "tick"),
        (50.0, "done 1"),
    ];
    check(false, &story, &["0 send with 0 doublings", "4 began on n1", "50 done"]);
    let never = [&story[..6], &[(70.0, "tick"), (73.0, "tick")]].concat();
    check(
        false,
        &never,
        &[
            "0 send with 0 doublings",
            "4 began on n1",
            "70 say: its job ended without an answer; it is sent again",
            "73 send with 0 doublings",
        ],
    );
}

#[test]
fn what_has_to_go_comes_again() {
    for (line, why) in [
        ("squeue 1_0|PREEMPTED|n2|None|r.1", "its job had to make way for another one"),
        ("squeue 1_0|NODE_FAIL|n1|NodeDown|r.1", "its job's machine is gone"),
        ("squeue 1_0|TIMEOUT|n1|TimeLimit|r.1", "its job's time was up before it could stop"),
    ] {
        let say = format!("70 say: {why}; it goes on in another job");
        check(
            false,
            &[
                (0.0, "add"),
                (0.1, "sent"),
                (4.0, "squeue 1_0|RUNNING|n1|None|r.1"),
                (9.0, line),
                (70.0, "tick"),
                (72.0, "tick"),
            ],
            &["0 send with 0 doublings", "4 began on n1", &say, "72 send with 0 doublings"],
        );
    }
}

/// One that was told to stop in time says so itself, and goes on at once; one that never finishes a unit does not go on for ever.
#[test]
fn a_job_that_is_out_of_time_goes_on_while_it_gets_on() {
    let begin = [(0.0, "add"), (0.1, "sent")];
    let again = "say: it had to stop, and has saved what it had; it goes on in another job";
    let (first, second) = (format!("5 {again}"), format!("6 {again}"));
    let sent = "0 send with 0 doublings";
    check(
        false,
        &[&begin[..], &[(5.0, "stopped 1 3"), (5.1, "sent"), (6.0, "stopped 2 1")]].concat(),
        &[sent, &first, "5 send with 0 doublings", &second, "6 send with 0 doublings"],
    );
    check(
        false,
        &[&begin[..], &[(5.0, "stopped 1 0"), (5.1, "sent"), (6.0, "stopped 2 0")]].concat(),
        &[
            sent,
            &first,
            "5 send with 0 doublings",
            "6 failed: it had to stop, and has saved what it had, in 2 jobs one after the other, and finished no unit of its work \
             in any of them",
        ],
    );
}

#[test]
fn too_little_memory_is_doubled_and_then_said() {
    let mut story = vec![(0.0, "add")];
    let mut expect = vec!["0 send with 0 doublings".to_owned()];
    for (number, line) in [
        "1_0|OUT_OF_MEMORY|n1|OutOfMemory|r.1",
        "2_0|OUT_OF_MEMORY|n1|OutOfMemory|r.2",
        "3_0|OUT_OF_MEMORY|n1|None|r.3",
    ]
    .iter()
    .enumerate()
    {
        let begin = 100.0 * number as f64;
        let squeue: &'static str = Box::leak(format!("squeue {line}").into_boxed_str());
        story.extend([(begin + 1.0, "sent"), (begin + 5.0, squeue), (begin + 70.0, "tick"), (begin + 73.0, "tick")]);
        let (judged, sent) = (begin + 70.0, begin + 73.0);
        if number < 2 {
            expect.push(format!(
                "{judged} say: its job took more memory than it requested; it goes on in one that asks for twice as much"
            ));
            expect.push(format!("{sent} send with {} doublings", number + 1));
        } else {
            expect.push(format!("{judged} lost: its job took more memory than it requested, and was killed"));
        }
    }
    check(false, &story, &expect.iter().map(String::as_str).collect::<Vec<_>>());
}

/// The queue forgets jobs that are over, and may forget others: that says nothing until a while has passed. Made up: the lines are empty.
#[test]
fn a_job_that_the_queue_does_not_know_may_still_be_there() {
    let begin = [(0.0, "add"), (0.1, "sent"), (2.0, "squeue 1_0|RUNNING|n1|None|r.1"), (10.0, "squeue ")];
    let sent = ["0 send with 0 doublings", "2 began on n1"];
    check(false, &[&begin[..], &[(30.0, "done 1")]].concat(), &[sent[0], sent[1], "30 done"]);
    // It is there again.
    check(false, &[&begin[..], &[(30.0, "squeue 1_0|RUNNING|n1|None|r.1"), (100.0, "tick")]].concat(), &sent);
    let lost = "70 say: its job is not known to the cluster any more, and has not answered; it is sent again";
    // The old one answers although another one was sent: it counts, and the other one is stopped.
    check(
        false,
        &[&begin[..], &[(70.0, "tick"), (72.0, "tick"), (73.0, "sent"), (80.0, "done 1")]].concat(),
        &[sent[0], sent[1], lost, "72 send with 0 doublings", "80 stop 2_0 Kill", "80 done"],
    );
    // Where there are accounts, they say why.
    check(
        true,
        &[&begin[..], &[(11.0, "sacct 1_0|OUT_OF_MEMORY|0:125|"), (71.0, "tick")]].concat(),
        &[
            sent[0],
            sent[1],
            "10 look up 1_0",
            "71 say: its job took more memory than it requested; it goes on in one that asks for twice as much",
        ],
    );
}

/// Of a job that was sent again the later attempt is gone on with, and the lost one may answer after all.
#[test]
fn the_latest_attempt_of_an_earlier_coordinator_is_gone_on_with() {
    let begin = [
        (0.0, "adopt"),
        (2.0, "squeue 1_0|NODE_FAIL|n1|NodeDown|r.1\n2_0|RUNNING|n2|None|r.2\n"),
        (70.0, "squeue 1_0|NODE_FAIL|n1|NodeDown|r.1\n2_0|RUNNING|n2|None|r.2\n"),
        (140.0, "tick"),
    ];
    for (done, other) in [("done 2", "90 stop 1_0 Kill"), ("done 1", "90 stop 2_0 Kill")] {
        check(false, &[&begin[..3], &[(90.0, done)]].concat(), &["2 began on n2", other, "90 done"]);
    }
    check(false, &begin, &["2 began on n2"]);
}

/// What is given up is named with its reason, before it is sent again.
#[test]
fn what_is_given_up_is_written_down() {
    let mut jobs = Jobs::new(Waits::default(), false, 0);
    let name = Name { submission: "r.1".to_owned(), index: 0 };
    jobs.on(at(0.0), Event::Adopt(0, vec![(name.clone(), Some("1_0".to_owned()))]));
    jobs.on(at(1.0), Event::View(slurm::queue("1_0|NODE_FAIL|n1|NodeDown|r.1")));
    let commands = jobs.on(at(62.0), Event::Tick);
    let given_up = commands.into_iter().find_map(|command| match command {
        Command::GivenUp(name, why) => Some((name, why)),
        _ => None,
    });
    assert_eq!(given_up, Some((name, "its job's machine is gone".to_owned())));
}

/// Nothing is concluded from a queue that cannot be looked at.
#[test]
fn a_controller_that_is_down_loses_no_job() {
    check(
        false,
        &[
            (0.0, "add"),
            (0.1, "sent"),
            (2.0, "squeue 1_0|RUNNING|n1|None|r.1"),
            (10.0, "down"),
            (80.0, "down"),
            (600.0, "down"),
            (601.0, "squeue 1_0|RUNNING|n1|None|r.1"),
            (602.0, "done 1"),
        ],
        &[
            "0 send with 0 doublings",
            "2 began on n1",
            "80 say: the queue cannot be looked at: Unable to contact slurm controller; jobs go on, and it is tried again",
            "601 say: the queue can be looked at again",
            "602 done",
        ],
    );
    // Jobs that could not be given to it are given to it again, once it is sure that they did not arrive.
    let refused =
        "refused sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)";
    check(
        false,
        &[(0.0, "add"), (1.0, refused), (3.0, "squeue "), (62.0, "squeue "), (63.0, "sent")],
        &[
            "0 send with 0 doublings",
            "1 say: the cluster did not take jobs: sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect \
             failure); they are sent again",
            "62 send with 0 doublings",
        ],
    );
    check(
        false,
        &[(0.0, "add"), (1.0, "refused sbatch: error: invalid partition specified: nope")],
        &["0 send with 0 doublings", "1 failed: sbatch: error: invalid partition specified: nope"],
    );
}

#[test]
fn a_job_is_stopped_wherever_it_is() {
    let stopped = "failed: interrupted";
    let say = |at: f64| format!("{at} {stopped}");
    check(
        false,
        &[(0.0, "add"), (0.1, "sent"), (2.0, "squeue 1_0|PENDING||Resources|r.1"), (3.0, "cancel")],
        &["0 send with 0 doublings", "3 stop 1_0 Kill", &say(3.0)],
    );
    check(
        false,
        &[(0.0, "add"), (0.1, "sent"), (2.0, "squeue 1_0|RUNNING|n1|None|r.1"), (3.0, "cancel"), (9.0, "stopped 1 0")],
        &["0 send with 0 doublings", "2 began on n1", "3 stop 1_0 Finish", &say(9.0)],
    );
    // Between two attempts, and before the first has an id.
    check(
        false,
        &[(0.0, "add"), (1.0, "cancel"), (2.0, "sent")],
        &["0 send with 0 doublings", "2 stop 1_0 Kill", &say(2.0)],
    );
    check(false, &[(0.0, "add"), (0.1, "sent"), (5.0, "failed 1")], &["0 send with 0 doublings", "5 failed: singular"]);
}

/// A thousand workers: no event costs more than a look at each job.
#[test]
fn a_thousand_jobs_are_done() {
    let mut jobs = Jobs::new(Waits::default(), false, 0);
    let all = 5000;
    let mut sent = 0;
    for id in 0..all {
        for command in jobs.on(at(0.0), Event::Add(id)) {
            if let Command::Send(some) = command {
                sent += some.len();
            }
        }
    }
    assert_eq!(sent, all);
    let ids: Vec<JobId> = (0..all).collect();
    for (number, some) in ids.chunks(1001).enumerate() {
        jobs.sending(&format!("r.{number}"), some);
        jobs.on(at(1.0), Event::Sent(format!("r.{number}"), number.to_string()));
    }
    let mut lines = String::new();
    for id in 0..all {
        let _ = writeln!(lines, "{0}_{1}|RUNNING|n1|None|r.{0}", id / 1001, id % 1001);
    }
    for look in 0..20 {
        jobs.on(at(10.0 + f64::from(look)), Event::View(slurm::queue(&lines)));
    }
    assert_eq!(jobs.counts(), (0, all));
    let mut done = 0;
    for id in 0..all {
        let name = Name { submission: format!("r.{}", id / 1001), index: (id % 1001) as u32 };
        let commands = jobs.on(at(60.0), Event::Answer(name, Said::Done));
        done += commands.iter().filter(|command| matches!(command, Command::Ended(_, _, Ok(())))).count();
    }
    assert_eq!((done, jobs.counts()), (all, (0, 0)));
}
