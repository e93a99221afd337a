//! The table of layers: the crates that each crate may use, and the dependencies that it must not have.
//!
//! Lowest layer first, each row naming only rows above it. docs/ARCHITECTURE.md says in words why.

use super::graph::Kind;

/// One crate of the workspace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer {
    /// The member's name.
    pub(crate) name: &'static str,
    /// The members it may depend on.
    pub(crate) may_use: &'static [&'static str],
    /// The members that its tests, examples and benches may use on top.
    pub(crate) tests_may_use: &'static [&'static str],
    /// The outside crates that it must not depend on.
    pub(crate) must_not_use: &'static [&'static Group],
    /// The only outside crates that it may depend on; `None` for any that no group forbids.
    pub(crate) only_outside: Option<&'static [&'static str]>,
}

/// Outside crates that are forbidden for one reason.
#[derive(Debug)]
pub(crate) struct Group {
    /// The reason, as the subject of a sentence.
    pub(crate) what: &'static str,
    /// Names; one that ends with `*` stands for all that begin so.
    pub(crate) crates: &'static [&'static str],
    /// Whether tests, examples and benches may use them.
    pub(crate) allowed_in_tests: bool,
    /// Whether they are forbidden also as dependencies of dependencies.
    pub(crate) also_through_others: bool,
}

/// The order of the modules of one crate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Modules {
    /// The member's name.
    pub(crate) krate: &'static str,
    /// Modules of the root, lowest first; those of one rank may use one another and all before them.
    pub(crate) order: &'static [&'static [&'static str]],
}

/// The crates whose modules have an order: files, jobs, report, cli.
pub(crate) const MODULES: &[Modules] = &[Modules {
    krate: "bench-apps",
    order: &[
        &["error", "words", "names", "stdout", "interrupt"],
        &["config", "statistic", "progress"],
        &["files"],
        &["results", "experiment", "wasserstein"],
        &["jobs"],
        &["report"],
        &["cli"],
    ],
}];

/// Circles that are allowed for now: a crate, the files, and why. None at present.
pub(crate) const KNOWN_CIRCLES: &[(&str, &[&str], &str)] = &[];

/// The edges.
pub(crate) const LAYERS: &[Layer] = &[
    Layer {
        name: "projectors",
        may_use: &[],
        tests_may_use: &[],
        must_not_use: &[&NETWORKS, &DATA, &REPORTS, &TERMINAL, &CLOCKS, &LOOSE_ERRORS, &TEST_TOOLS],
        only_outside: None,
    },
    Layer {
        name: "blockconv",
        may_use: &["projectors"],
        tests_may_use: &[],
        must_not_use: &[&NETWORKS, &DATA, &REPORTS, &TERMINAL, &CLOCKS, &LOOSE_ERRORS, &TEST_TOOLS],
        only_outside: None,
    },
    Layer {
        name: "lipconv",
        may_use: &["projectors", "blockconv"],
        tests_may_use: &[],
        must_not_use: &[&DATA, &REPORTS, &TERMINAL, &CLOCKS, &LOOSE_ERRORS, &TEST_TOOLS],
        only_outside: None,
    },
    Layer {
        name: "lipconv-certify",
        may_use: &["projectors", "blockconv", "lipconv"],
        tests_may_use: &[],
        must_not_use: &[&DATA, &REPORTS, &TERMINAL, &CLOCKS, &LOOSE_ERRORS, &TEST_TOOLS],
        only_outside: None,
    },
    Layer {
        name: "lipconv-datasets",
        // the batches of its images are what lipconv trains on
        may_use: &["lipconv"],
        tests_may_use: &[],
        must_not_use: &[&REPORTS, &TERMINAL, &CLOCKS, &LOOSE_ERRORS, &TEST_TOOLS],
        only_outside: None,
    },
    Layer {
        name: "lipconv-interchange",
        may_use: &["lipconv"],
        tests_may_use: &[],
        must_not_use: &[&DATA, &REPORTS, &TERMINAL, &CLOCKS, &LOOSE_ERRORS, &TEST_TOOLS],
        only_outside: None,
    },
    Layer {
        name: "bench-apps",
        may_use: &[
            "projectors",
            "blockconv",
            "lipconv",
            "lipconv-certify",
            "lipconv-datasets",
            "lipconv-interchange",
        ],
        tests_may_use: &[],
        must_not_use: &[&TEST_TOOLS],
        only_outside: None,
    },
    Layer {
        name: "xtask",
        may_use: &[],
        tests_may_use: &[],
        must_not_use: &[],
        // compiled before anything else happens: every further one makes each command start later
        only_outside: Some(&["anyhow", "clap", "serde_json"]),
    },
];

/// A person who wants projectors or block convolution pulls in no neural-network code.
const NETWORKS: Group = Group {
    what: "neural-network code",
    crates: &["candle*", "burn*", "tch", "ort", "dfdx", "safetensors"],
    allowed_in_tests: false,
    also_through_others: true,
};

/// Only lipconv-datasets and what lies above it read images and archives and fetch them.
const DATA: Group = Group {
    what: "reading or fetching data sets",
    crates: &[
        "image", "png", "flate2", "tar", "zip", "csv", "hf-hub", "ureq", "reqwest", "hyper",
        "curl", "toml",
    ],
    allowed_in_tests: false,
    also_through_others: false,
};

/// Only the top crate draws.
const REPORTS: Group = Group {
    what: "plots and pages",
    crates: &["plotters*", "maud", "askama"],
    allowed_in_tests: false,
    also_through_others: false,
};

/// Only the top crate talks to a person; libraries return values, call back, or trace.
const TERMINAL: Group = Group {
    what: "a command line, a terminal or a log",
    crates: &[
        "clap*",
        "indicatif",
        "console",
        "crossterm",
        "termcolor",
        "colored",
        "owo-colors",
        "comfy-table",
        "tabled",
        "ctrlc",
        "env_logger",
        "simplelog",
        "fern",
        "tracing-subscriber",
    ],
    allowed_in_tests: false,
    also_through_others: false,
};

/// Results depend on arguments and seeds, never on the time.
const CLOCKS: Group = Group {
    what: "a clock",
    crates: &["chrono", "time", "jiff", "humantime"],
    allowed_in_tests: false,
    also_through_others: false,
};

/// A library's failures are an enum that callers can match on.
const LOOSE_ERRORS: Group = Group {
    what: "an error type that callers cannot match on",
    crates: &["anyhow", "eyre", "color-eyre"],
    allowed_in_tests: false,
    also_through_others: false,
};

/// What only tests need is not shipped.
const TEST_TOOLS: Group = Group {
    what: "a test tool",
    crates: &["approx", "proptest", "criterion", "ndarray-npy", "quickcheck", "insta"],
    allowed_in_tests: true,
    also_through_others: false,
};

impl Group {
    /// Whether a dependency of this kind on this crate is forbidden.
    pub(crate) fn contains(&self, name: &str, kind: Kind) -> bool {
        self.lists(name) && !(self.allowed_in_tests && kind == Kind::Dev)
    }

    /// Whether the crate is one of the group.
    pub(crate) fn lists(&self, name: &str) -> bool {
        self.crates.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == *pattern,
        })
    }
}
