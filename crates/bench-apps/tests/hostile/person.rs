//! The main job for an ordinary user, in a folder with an odd name, under any umask, without a terminal and without standard error.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::command::Place;

const JOB: &str = "exec \"$L\" reproduce --dataset synthetic --epochs 1 --train-limit 192 --test-limit 16 --recipe paper \
                   --pgd-steps 2 --strong-restarts 0 --out 'aus gabe'";
const FILES: [&str; 9] = [
    "results.json",
    "report.html",
    "run/config.toml",
    "run/versions.json",
    "run/metrics.jsonl",
    "run/data.json",
    "run/checkpoint.safetensors",
    "run/network.safetensors",
    "run/log.txt",
];

#[test]
fn an_ordinary_user_gets_the_main_job_done() {
    let place = Place::new();
    fs::set_permissions(place.path("."), fs::Permissions::from_mode(0o755)).unwrap();
    // the folders above the program may be closed to others
    fs::copy(env!("CARGO_BIN_EXE_lipconv"), place.path("lipconv")).unwrap();
    let other = "setpriv --reuid=nobody --regid=nogroup --clear-groups";
    let able = place.shell(&format!("[ $(id -u) = 0 ] && chown nobody . && {other} true"));
    let user = if able.status.success() { other } else { "" };
    let mut networks = Vec::new();
    for (umask, mode, how) in [
        ("077", "600", "nohup bash job.sh 2>&- >out"),
        ("022", "644", "TERM=dumb nohup bash job.sh >out 2>err"),
        // a terminal that can do nothing
        ("027", "640", "TERM=dumb script -qec 'bash job.sh' /dev/null >out"),
    ] {
        let folder = format!("ein Ordner äöü 影 {umask}");
        fs::create_dir(place.path(&folder)).unwrap();
        fs::write(place.path(&folder).join("job.sh"), JOB).unwrap();
        fs::write(place.path(&folder).join("how.sh"), format!("umask {umask}\n{how}\n")).unwrap();
        let line = format!(
            "export L=$PWD/lipconv; chmod 755 '{folder}' '{folder}'/*; chown --reference=. '{folder}'; \
             cd '{folder}' && HOME=$PWD {user} bash how.sh"
        );
        let output = place.shell(&line);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let out = place.path(&folder).join("aus gabe");
        assert!(output.status.success(), "{umask}: {text}");
        let stat = format!("cd '{folder}/aus gabe' && stat -c '%a' {} | sort -u", FILES.join(" "));
        let modes = String::from_utf8(place.shell(&stat).stdout).unwrap();
        assert_eq!(modes.trim(), mode, "{folder}");
        let results: serde_json::Value =
            serde_json::from_slice(&fs::read(out.join("results.json")).unwrap()).unwrap();
        assert!(results.to_string().contains("certified"), "{results}");
        networks.push(fs::read(out.join("run/network.safetensors")).unwrap());
        let left = place.shell(&format!("find '{folder}' -name '.*' -type f"));
        assert!(left.stdout.is_empty(), "{}", String::from_utf8_lossy(&left.stdout));
    }
    assert!(networks.windows(2).all(|pair| pair[0] == pair[1]));
}
