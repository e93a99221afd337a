//! Progress lines, as a function of time.

use std::time::Duration;

use bench_apps::config::DeviceKind;
use bench_apps::jobs::job::Choice;
use bench_apps::jobs::spec::Experiment;
use bench_apps::progress::{PlainLines, Report, spoken};

#[test]
fn a_line_is_due_every_five_seconds_and_at_the_end() {
    let mut lines = PlainLines::new("training", 0, 100);
    let at = Duration::from_secs_f64;
    assert_eq!(lines.update(at(0.1), 1, "loss 2.1"), None);
    assert_eq!(lines.update(at(4.9), 9, "loss 2.0"), None);
    let line = lines.update(at(5.0), 10, "loss 1.9").unwrap();
    assert_eq!(line, "training: 10/100 (10 %), loss 1.9, 45 s left");
    assert_eq!(lines.update(at(9.0), 18, ""), None);
    assert_eq!(lines.update(at(10.0), 20, "").unwrap(), "training: 20/100 (20 %), 40 s left");
    assert_eq!(
        lines.update(at(10.5), 100, "loss 0.5").unwrap(),
        "training: 100/100 (100 %), loss 0.5, 11 s in all"
    );
}

#[test]
fn the_time_left_counts_only_what_this_process_has_done() {
    let mut lines = PlainLines::new("training", 900, 1000);
    let line = lines.update(Duration::from_secs(6), 900, "").unwrap();
    assert_eq!(line, "training: 900/1000 (90 %), time left unknown");
    let line = lines.update(Duration::from_secs(20), 910, "").unwrap();
    assert_eq!(line, "training: 910/1000 (91 %), 3 min 0 s left");
}

#[test]
fn a_cell_that_searches_for_its_rate_has_not_begun() {
    let choice = Choice { budget: "quick", seeds: None, only: None, device: DeviceKind::Cpu };
    let found = Experiment::find("layers").unwrap().jobs(choice).unwrap();
    let share = |label: &str, done| {
        let report = Report { label: label.into(), done, total: 100, message: String::new() };
        found.jobs[0].fraction(&report)
    };
    assert_eq!(share("search", 100), 0.0);
    assert!(share("training", 50) < share("training", 100));
    assert!(share("training", 100) <= share("pgd", 0) && share("pgd", 100) < 1.0);
}

#[test]
fn durations_are_said_as_people_say_them() {
    let cases = [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200.0, "3 min 20 s"),
        (7500.0, "2 h 5 min"),
    ];
    for (seconds, text) in cases {
        assert_eq!(spoken(Duration::from_secs_f64(seconds)), text);
    }
}

#[test]
fn a_report_survives_being_written_and_read() {
    use bench_apps::progress::Report;
    let report =
        Report { label: "training".into(), done: 3, total: 10, message: "loss 0.1,\t50 %".into() };
    assert_eq!(Report::parse(&report.to_string()), Some(report));
    for line in ["", "progress", "progress\tx\t1\t2", "progress\tx\tone\t2\t", "note: x"] {
        assert_eq!(Report::parse(line), None, "{line}");
    }
}
