//! The writer of files: what it replaces, refuses, writes in place and cleans up.

use std::fs;
use std::path::Path;

use lipconv::output::{check, open_own, protect, write};

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_replaced_whole_and_nothing_else_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    for content in [&b"old and long"[..], b"", b"new"] {
        check(&path).unwrap();
        write(&path, content).unwrap();
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    assert_eq!(names(dir.path()), ["a"]);
    for wrong in [dir.path(), &path.join("below"), &dir.path().join("b/")] {
        assert!(check(wrong).is_err() && write(wrong, b"x").is_err(), "{}", wrong.display());
    }
    assert_eq!((names(dir.path()), fs::read(&path).unwrap()), (vec!["a".into()], b"new".to_vec()));
    // folders that are missing are made, but not by the check
    let below = dir.path().join("no/folder/x");
    check(&below).unwrap();
    assert_eq!(names(dir.path()), ["a"]);
    write(&below, b"x").unwrap();
    assert_eq!(fs::read(&below).unwrap(), b"x");
}

#[test]
fn an_input_is_left_alone_by_whatever_name() {
    let dir = tempfile::tempdir().unwrap();
    let (input, other) = (dir.path().join("input"), dir.path().join("other"));
    fs::write(&input, "precious").unwrap();
    fs::hard_link(&input, &other).unwrap();
    protect(&input);
    let below = dir.path().join("below");
    fs::create_dir(&below).unwrap();
    for path in [&input, &other, &below.join("../input")] {
        for outcome in [check(path), write(path, b"x")] {
            assert_eq!(outcome.unwrap_err().to_string(), "it is an input of this command");
        }
    }
    assert_eq!(fs::read(&input).unwrap(), b"precious");
    // another file in its place is no input
    fs::remove_file(&input).unwrap();
    fs::write(&input, "another").unwrap();
    write(&other, b"free again").unwrap();
}

/// Another file in its place would let a second process in.
#[test]
fn a_locked_file_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.lock");
    let lock = open_own(&path).unwrap();
    lock.lock().unwrap();
    for outcome in [check(&path), write(&path, b"x")] {
        assert_eq!(outcome.unwrap_err().to_string(), "another process holds it");
    }
    drop(lock);
    write(&path, b"x").unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn links_of_the_system_are_followed_and_those_below_dev_are_not() {
    write(Path::new("/dev/fd/2"), b"").unwrap();
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return };
    let (victim, link) = (dir.path().join("victim"), dir.path().join("link"));
    fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink("victim", &link).unwrap();
    for outcome in [check(&link), write(&link, b"x")] {
        let text = outcome.unwrap_err().to_string();
        assert!(text.starts_with("it is a symbolic link"), "{text}");
    }
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
}

#[test]
fn what_a_killed_process_left_is_removed_and_what_is_in_use_stays() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (left, used) = (".lipconv-0123456789abcdef.tmp", ".lipconv-fedcba9876543210.tmp");
    let others = [".lipconv-0123.tmp", ".lipconv-0123456789abcdeg.tmp", ".tmp0123456789"];
    for name in others.iter().chain([&left, &used]) {
        fs::write(at(name), "half").unwrap();
    }
    let held = fs::File::open(at(used)).unwrap();
    held.lock().unwrap();
    write(&at("a"), b"x").unwrap();
    let mut expected = [&others[..], &[used, "a"]].concat();
    expected.sort_unstable();
    assert_eq!(names(dir.path()), expected);
    drop(held);
    check(&at("a")).unwrap();
    assert!(!at(used).exists());
}

#[cfg(unix)]
mod unix {
    use std::io::Read;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
    use std::process::Command;

    use super::*;

    #[test]
    fn links_are_refused_and_what_they_lead_to_is_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("kept"), "old").unwrap();
        symlink("kept", at("link")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        symlink(".", at("folder")).unwrap();
        for name in ["link", "dangling", "folder"] {
            let text = check(&at(name)).unwrap_err().to_string();
            assert_eq!(text, "it is a symbolic link, expected a file or nothing");
            assert_eq!(write(&at(name), b"x").unwrap_err().to_string(), text);
            assert_eq!(open_own(&at(name)).unwrap_err().to_string(), text);
            assert!(at(name).is_symlink());
        }
        assert_eq!(
            (fs::read(at("kept")).unwrap(), at("nowhere").exists()),
            (b"old".to_vec(), false)
        );
    }

    #[test]
    fn devices_and_pipes_are_written_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = {
            let pipe = pipe.clone();
            std::thread::spawn(move || {
                let mut text = String::new();
                fs::File::open(pipe).unwrap().read_to_string(&mut text).unwrap();
                text
            })
        };
        check(&pipe).unwrap();
        write(&pipe, b"through").unwrap();
        assert_eq!(reader.join().unwrap(), "through");
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
        write(Path::new("/dev/null"), b"away").unwrap();
        assert!(fs::symlink_metadata("/dev/null").unwrap().file_type().is_char_device());
        assert_eq!(names(dir.path()), ["pipe"]);
        assert!(open_own(&pipe).is_err());
    }

    #[test]
    fn permissions_are_those_of_any_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, plain) = (dir.path().join("ours"), dir.path().join("plain"));
        write(&ours, b"x").unwrap();
        fs::write(&plain, "x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }
}

#[test]
fn a_log_is_added_to_and_a_lock_is_not_emptied() {
    use std::io::Write;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    open_own(&path).unwrap().write_all(b"one ").unwrap();
    open_own(&path).unwrap().write_all(b"two").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"one two");
    assert!(open_own(dir.path()).is_err());
}
