//! Scripts for the batch system: what they ask for, and what they quote or refuse.

use bench_apps::jobs::slurm::{JobArray, SlurmOptions};

fn array() -> JobArray {
    JobArray {
        folder: "/shared/out/slurm/1".into(),
        cells: vec!["/shared/out/cells/full/a".into(), "/shared/out/cells/full/b".into()],
        program: "/bin/lip conv".into(),
        arguments: vec!["--data-dir".into(), "it's".into()],
        environment: vec![("LIPCONV_DATA".into(), "/data".into())],
        options: SlurmOptions::default(),
        at_a_time: None,
    }
}

#[test]
fn the_script_asks_for_nothing_that_was_not_asked_for() {
    let expected = "#!/bin/sh\n\
        #SBATCH --job-name=lipconv\n\
        #SBATCH --array=1-2\n\
        #SBATCH --output=/shared/out/slurm/1/%A_%a.log\n\
        #SBATCH --signal=B:TERM@60\n\
        set -eu\n\
        export LIPCONV_DATA='/data'\n\
        cell=$(sed -n \"${SLURM_ARRAY_TASK_ID}p\" '/shared/out/slurm/1/cells.txt')\n\
        exec '/bin/lip conv' --quiet experiment run \"$cell\" '--data-dir' 'it'\\''s'\n";
    assert_eq!(array().script().unwrap(), expected);
}

#[test]
fn the_script_asks_for_what_was_asked_for() {
    let options = SlurmOptions {
        partition: Some("gpu".into()),
        gpus: Some("a100:1".into()),
        time: Some("04:00:00".into()),
        account: Some("me".into()),
        cpus: Some(8),
    };
    let script = JobArray { options, at_a_time: Some(4), ..array() }.script().unwrap();
    for line in [
        "#SBATCH --array=1-2%4",
        "#SBATCH --partition=gpu",
        "#SBATCH --gpus=a100:1",
        "#SBATCH --time=04:00:00",
        "#SBATCH --account=me",
        "#SBATCH --cpus-per-task=8",
    ] {
        assert!(script.lines().any(|l| l == line), "{line}\n{script}");
    }
    assert!(script.contains("--quiet --threads 8 experiment run"), "{script}");
}

#[test]
fn what_is_no_plain_text_is_quoted_or_refused() {
    let folder = "/shared/my out%j/slurm/1";
    let script = JobArray { folder: folder.into(), ..array() }.script().unwrap();
    let output = "#SBATCH --output=\"/shared/my out%%j/slurm/1/%A_%a.log\"";
    assert!(script.lines().any(|line| line == output), "{script}");
    assert!(script.contains("'/shared/my out%j/slurm/1/cells.txt'"), "{script}");
    for folder in ["/a\nb", "/a\"b", "/a\\b", "/a\u{1b}b"] {
        let text = JobArray { folder: folder.into(), ..array() }.script().unwrap_err().to_string();
        assert!(text.contains(": expected a path "), "{text}");
    }
    let program = JobArray { program: "/bin/a\nb".into(), ..array() };
    assert!(program.script().is_err());
    for value in ["a\nrm -rf x", "", "a b", "a;b", "$(x)", "a#b", "é"] {
        for options in [
            SlurmOptions { partition: Some(value.into()), ..SlurmOptions::default() },
            SlurmOptions { time: Some(value.into()), ..SlurmOptions::default() },
            SlurmOptions { account: Some(value.into()), ..SlurmOptions::default() },
            SlurmOptions { gpus: Some(value.into()), ..SlurmOptions::default() },
        ] {
            let text = JobArray { options, ..array() }.script().unwrap_err().to_string();
            assert!(text.ends_with("expected letters, digits and _-.:,+=@/~"), "{text}");
            assert!(!text.contains('\n'), "{text}");
        }
    }
}
