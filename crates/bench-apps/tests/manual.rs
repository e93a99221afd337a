//! The pages of the manual.

use std::fs;

use crate::command::Place;

#[test]
fn every_command_has_a_page_and_every_reference_leads_to_one() {
    let place = Place::new();
    let written = place.succeed(&["man", "man1"]);
    let mut names: Vec<String> = fs::read_dir(place.path("man1"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let mut listed: Vec<&str> =
        written.lines().map(|line| line.strip_prefix("man1/").unwrap()).collect();
    listed.sort_unstable();
    assert_eq!(listed, names);
    for name in ["lipconv.1", "lipconv-experiment.1", "lipconv-experiment-run.1"] {
        assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
    }
    assert!(names.iter().all(|name| !name.contains("help")), "{names:?}");
    let mut n_references = 0;
    for name in &names {
        let page = fs::read_to_string(place.path("man1").join(name)).unwrap();
        for line in page.lines().filter_map(|line| line.strip_suffix("(1)")) {
            let reference = format!("{}.1", line.replace("\\-", "-"));
            assert!(names.contains(&reference), "{name} refers to {reference}");
            n_references += 1;
        }
    }
    // each but the first is referred to by the one above
    assert_eq!(n_references, names.len() - 1);
}
