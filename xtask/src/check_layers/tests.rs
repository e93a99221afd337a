//! Tests of check-layers, on metadata that is made up and on the workspace itself.

use serde_json::{Value, json};

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
            ("certify", &[("lipconv", "")]),
            ("bench-apps", &[("certify", ""), ("clap", ""), ("anyhow", "")]),
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
    let expected = ["certify -> approx: a test tool has no place in certify"];
    check(&[("certify", &[("approx", ""), ("proptest", "dev")])], &[], &expected);
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
}
