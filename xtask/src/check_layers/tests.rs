//! Tests of check-layers, on metadata that is made up and on the workspace itself.

use serde_json::{Value, json};

use super::table::Modules;
use super::*;

/// `(member, [(dependency, kind)])`, the kind empty for a normal one.
type Rows<'a> = &'a [(&'a str, &'a [(&'a str, &'a str)])];

/// Metadata of a workspace whose members have these dependencies, and of outside packages that use others in turn.
fn metadata(members: Rows<'_>, outside: Rows<'_>) -> Value {
    let kind = |kind: &str| if kind.is_empty() { Value::Null } else { json!(kind) };
    let manifest = |deps: &[(&str, &str)]| -> Vec<Value> {
        deps.iter().map(|(name, k)| json!({"name": name, "kind": kind(k)})).collect()
    };
    let edges = |deps: &[(&str, &str)]| -> Vec<Value> {
        deps.iter().map(|(name, k)| json!({"pkg": format!("id of {name}"), "dep_kinds": [{"kind": kind(k)}]})).collect()
    };
    let all = || members.iter().chain(outside);
    json!({
        "workspace_members": members.iter().map(|(name, _)| format!("id of {name}")).collect::<Vec<_>>(),
        "packages": all().map(|(name, deps)| {
            json!({"id": format!("id of {name}"), "name": name, "dependencies": manifest(deps)})
        }).collect::<Vec<_>>(),
        "resolve": {"nodes": all().map(|(name, deps)| {
            json!({"id": format!("id of {name}"), "deps": edges(deps)})
        }).collect::<Vec<_>>()},
    })
}

#[track_caller]
fn check(members: Rows<'_>, outside: Rows<'_>, expected: &[&str]) {
    let graph = Graph::from_metadata(&metadata(members, outside)).unwrap();
    let named = |layer: &&Layer| members.iter().any(|(name, _)| *name == layer.name);
    let layers: Vec<Layer> = LAYERS.iter().filter(named).copied().collect();
    assert_eq!(violations(&graph, &layers), expected);
}

#[test]
fn the_layers_of_the_design_are_accepted() {
    check(
        &[
            ("projectors", &[("ndarray", ""), ("approx", "dev")]),
            ("blockconv", &[("projectors", "")]),
            ("lipconv", &[("projectors", ""), ("blockconv", ""), ("candle-core", "")]),
            ("lipconv-certify", &[("lipconv", "")]),
            ("lipconv-datasets", &[("lipconv", ""), ("image", ""), ("ureq", "")]),
            (
                "bench-apps",
                &[("lipconv-certify", ""), ("lipconv-datasets", ""), ("clap", ""), ("anyhow", "")],
            ),
            ("xtask", &[("anyhow", ""), ("clap", ""), ("serde_json", "")]),
        ],
        &[],
        &[],
    );
}

#[test]
fn an_edge_upwards_is_found_whatever_its_kind() {
    for (kind, shown) in [("", "lipconv"), ("dev", "lipconv (dev)"), ("build", "lipconv (build)")] {
        let expected =
            format!("blockconv -> {shown}: not an allowed edge (blockconv may use projectors)");
        check(&[("blockconv", &[("lipconv", kind)]), ("lipconv", &[])], &[], &[&expected]);
    }
}

#[test]
fn networks_are_found_below_lipconv() {
    check(
        &[("projectors", &[("candle-nn", "dev")])],
        &[],
        &["projectors -> candle-nn (dev): neural-network code has no place in projectors"],
    );
}

#[test]
fn networks_are_found_through_another_crate() {
    check(
        &[("blockconv", &[("helper", "")])],
        &[
            ("helper", &[("candle-core", ""), ("proptest", "")]),
            ("candle-core", &[]),
            ("proptest", &[]),
        ],
        &["blockconv pulls in helper -> candle-core: neural-network code"],
    );
}

#[test]
fn development_dependencies_of_others_pull_in_nothing() {
    check(
        &[("blockconv", &[("helper", "")])],
        &[("helper", &[("candle-core", "dev")]), ("candle-core", &[])],
        &[],
    );
}

#[test]
fn a_command_line_is_found_in_a_library() {
    for outside in ["clap", "clap_builder", "indicatif", "tracing-subscriber"] {
        let expected = format!(
            "lipconv -> {outside}: a command line, a terminal or a log has no place in lipconv"
        );
        check(&[("lipconv", &[(outside, "")])], &[], &[&expected]);
    }
}

#[test]
fn a_test_tool_is_found_outside_tests() {
    let expected = ["lipconv-certify -> approx: a test tool has no place in lipconv-certify"];
    check(&[("lipconv-certify", &[("approx", ""), ("proptest", "dev")])], &[], &expected);
}

#[test]
fn xtask_stays_small_and_alone() {
    check(
        &[("xtask", &[("regex", ""), ("projectors", "dev")]), ("projectors", &[])],
        &[],
        &[
            "xtask -> regex: xtask depends only on anyhow, clap, serde_json",
            "xtask -> projectors (dev): not an allowed edge (xtask may use no other crate of the workspace)",
        ],
    );
}

#[test]
fn table_and_members_must_agree() {
    let graph = Graph::from_metadata(&metadata(&[("newcomer", &[])], &[])).unwrap();
    let layers: Vec<Layer> = LAYERS.iter().take(1).copied().collect();
    assert_eq!(
        violations(&graph, &layers),
        [
            "projectors: a row in the table of layers, but no member",
            "newcomer: has no row in the table of layers",
        ]
    );
}

#[test]
fn the_table_is_in_order() {
    for (layer_idx, layer) in LAYERS.iter().enumerate() {
        for used in layer.may_use.iter().chain(layer.tests_may_use) {
            let below = LAYERS[..layer_idx].iter().any(|lower| lower.name == *used);
            assert!(below, "{} may use {used}, which is not above it in the table", layer.name);
        }
    }
}

#[test]
fn metadata_of_another_shape_is_an_error() {
    let error = Graph::from_metadata(&json!({"workspace_members": []})).unwrap_err();
    assert_eq!(format!("{error:#}"), "cargo metadata: resolve: expected a list");
}

#[test]
fn the_workspace_keeps_to_its_layers() {
    let graph = Graph::from_metadata(&workspace::metadata().unwrap()).unwrap();
    assert_eq!(violations(&graph, LAYERS), Vec::<String>::new());
    let tree = Tree::read(&workspace::root()).unwrap();
    assert_eq!(modules::violations(&tree, MODULES), Vec::<String>::new());
}

/// What the rules about modules find in a crate `alpha` with these files below `src/`.
#[track_caller]
fn check_files(
    files: &[(&str, &str)],
    order: &'static [&'static [&'static str]],
    expected: &[&str],
) {
    let mut all = vec![("crates/a/Cargo.toml".to_owned(), "[package]\nname = \"alpha\"\n")];
    all.extend(files.iter().map(|(path, text)| (format!("crates/a/src/{path}"), *text)));
    let all: Vec<_> = all.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    let tables = [Modules { krate: "alpha", order }];
    let tables = if order.is_empty() { &[][..] } else { &tables };
    assert_eq!(modules::violations(&Tree::of(&all), tables), expected);
}

#[test]
fn a_circle_of_files_is_found() {
    let circle = "alpha: circle of files: a.rs -> b.rs (B), b.rs -> a.rs (A)";
    let root = ("lib.rs", "mod a; mod b; mod c; pub use a::A;");
    for b in [
        "use crate::a::A; pub struct B(A);",
        "pub struct B(crate::a::A);",
        "use super::a; pub struct B(a::A);",
        "use super::{c, a::{self as other}}; pub struct B(other::A);",
        // through the re-export of the root
        "use crate::A; pub struct B(A);",
    ] {
        let files =
            [root, ("a.rs", "use crate::b::B; pub struct A(Box<B>);"), ("b.rs", b), ("c.rs", "")];
        check_files(&files, &[], &[circle]);
    }
}

#[test]
fn what_a_type_captures_is_no_import() {
    let body = "fn f<'a>(x: &'a u8) -> impl Sized + use<'a> { crate::b::g(); x } pub struct A;";
    let files = [("lib.rs", "mod a; mod b;"), ("a.rs", body), ("b.rs", "pub fn g() {}")];
    check_files(&files, &[], &[]);
    let circle = "alpha: circle of files: a.rs -> b.rs (g), b.rs -> a.rs (A)";
    let back = ("b.rs", "use crate::a::A; pub fn g() {}");
    check_files(&[files[0], files[1], back], &[], &[circle]);
}

#[test]
fn a_circle_of_three_is_found_once() {
    let files = [
        ("main.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::B;"),
        ("b/mod.rs", "use crate::c::C; pub struct B;"),
        ("c.rs", "use crate::a::A; pub struct C;"),
    ];
    let line =
        "alpha: circle of files: a.rs -> b/mod.rs (B), b/mod.rs -> c.rs (C), c.rs -> a.rs (A)";
    check_files(&files, &[], &[line]);
}

#[test]
fn tests_comments_and_texts_make_no_circle() {
    let b = "//! See [`crate::a::A`].\npub struct B;\nconst TEXT: &str = \"crate::a::A\";\n\
             #[cfg(test)]\nmod tests {\n use crate::a::A;\n fn f() { crate::a::g() }\n}\n\
             #[cfg(test)]\nuse crate::a::A;\npub(in crate::a) fn f() {}\n";
    check_files(
        &[("lib.rs", "mod a; mod b;"), ("a.rs", "use crate::b::B;"), ("b.rs", b)],
        &[],
        &[],
    );
}

#[test]
fn a_parent_and_its_children_are_one_thing() {
    let family = [
        ("lib.rs", "mod a; mod x;"),
        ("a.rs", "mod b; mod c; use b::B; pub struct A; fn f() { c::g() }"),
        ("a/b.rs", "use super::A; pub struct B;"),
        ("a/c.rs", "use super::A; pub fn g() {}"),
    ];
    check_files(&[&family[..], &[("x.rs", "")]].concat(), &[], &[]);
    // but not with a file from outside
    let outside =
        [("x.rs", "use crate::a::A; pub struct X;"), ("a/c.rs", "use crate::x::X; pub fn g() {}")];
    let line = "alpha: circle of files: a.rs -> a/b.rs (B), a.rs -> a/c.rs (g), a/b.rs -> a.rs (A), \
                a/c.rs -> x.rs (X), x.rs -> a.rs (A)";
    check_files(&[&family[..3], &outside].concat(), &[], &[line]);
    // and not among the children
    let children = [
        ("x.rs", ""),
        ("a/c.rs", "use super::b::B; pub fn g() {}"),
        ("a/b.rs", "use super::{A, c::g}; pub struct B;"),
    ];
    let line = "alpha: circle of files: a/b.rs -> a/c.rs (g), a/c.rs -> a/b.rs (B)";
    check_files(&[&family[..2], &children].concat(), &[], &[line]);
}

#[test]
fn a_list_of_children_uses_none_of_them() {
    let files = [
        ("lib.rs", "mod a; pub use a::{A, f};"),
        ("a/mod.rs", "mod b; mod c; pub use self::b::B; pub use c::f; pub struct A;"),
        ("a/b.rs", "use super::f; use crate::A; pub struct B;"),
        ("a/c.rs", "pub fn f() {}"),
    ];
    check_files(&files, &[], &[]);
}

#[test]
fn a_use_of_a_later_module_is_found() {
    let order: &[&[&str]] = &[&["base"], &["data"], &["report"], &["cli"]];
    let with = |report: &'static str| {
        [
            ("lib.rs", "mod base; mod data; mod report; pub mod cli;"),
            ("base.rs", "pub struct Base;"),
            ("data.rs", "use crate::base::Base;"),
            ("report/mod.rs", "mod page;"),
            ("report/page.rs", report),
            (
                "cli/mod.rs",
                "mod args; use crate::{data, report}; fn f() { data::g(); report::h() }",
            ),
            ("cli/args.rs", "pub struct Args;"),
        ]
    };
    check_files(&with("use crate::data::g;"), order, &[]);
    let why = "a module may not use a later one";
    let line = format!("alpha: report/page.rs -> cli/args.rs (Args): {why}");
    check_files(&with("fn f(args: crate::cli::args::Args) {}"), order, &[&line]);
    check_files(
        &with(""),
        &[&["base"], &["data"], &["cli"]],
        &["alpha: module report has no rank"],
    );
}

#[test]
fn the_order_of_modules_names_members() {
    for table in MODULES {
        assert!(LAYERS.iter().any(|layer| layer.name == table.krate), "{}", table.krate);
    }
}
