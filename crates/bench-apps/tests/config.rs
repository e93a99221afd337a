//! Run configurations: defaults, texts, refusals.

use std::fs;
use std::path::Path;

use bench_apps::Error;
use bench_apps::config::{
    Activation, AugmentationKind, DatasetName, Method, Net, Recipe, RunConfig, ScheduleKind,
};
use bench_apps::jobs::spec::Experiment;

#[test]
fn an_empty_file_is_the_papers_network_with_the_papers_loss_and_attack() {
    let config = RunConfig::parse("empty", "").unwrap();
    assert_eq!(config, RunConfig::default());
    assert_eq!(config.training.margin, 1.5 * std::f64::consts::SQRT_2);
    assert_eq!((config.training.batch_size, config.training.learning_rate), (128, 1e-3));
    let pgd = &config.evaluation.pgd;
    assert_eq!((pgd.steps, pgd.step_size, pgd.kappa), (200, 0.01, 50.0));
    assert!(config.evaluation.eps.iter().any(|eps| eps.text() == "1.58"));
}

#[test]
fn a_configuration_survives_being_written_and_read() {
    let text = "[data]\ndataset = \"synthetic\"\ntest_limit = 500\n[training]\nepochs = 3\nmargin = 0.1\n\
                schedule = \"exponential\"\n[evaluation]\neps = [\"36/255\", 0.5]\nattack_eps = [\"36/255\"]\n";
    let config = RunConfig::parse("text", text).unwrap();
    assert_eq!(config.data.dataset, DatasetName::Synthetic);
    assert_eq!(config.training.schedule, ScheduleKind::Exponential);
    assert_eq!(config.evaluation.eps[0].value(), 36.0 / 255.0);
    let again = RunConfig::parse("again", &config.to_toml().unwrap()).unwrap();
    assert_eq!(again, config);
}

#[test]
fn the_examples_are_valid_and_the_default_one_is_the_default() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/configs");
    let mut n = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        RunConfig::read(&entry.unwrap().path()).unwrap();
        n += 1;
    }
    assert!(n >= 2);
    let default = RunConfig::read(&folder.join("bcop-small-mnist.toml")).unwrap();
    // the file writes 1.0 where the default's text is 1
    assert_eq!(default.to_toml().unwrap(), RunConfig::default().to_toml().unwrap());
}

#[test]
fn unknown_keys_and_wrong_types_are_refused_with_the_line() {
    let cases = [
        (
            "[training]\nepoch = 3\n",
            "run.toml, line 2: unknown key `training.epoch`, did you mean `training.epochs`?",
        ),
        ("seed = 3\n", "run.toml, line 1: unknown key `seed`, expected one of data, device, "),
        (
            "[training]\nepochs = \"three\"\n",
            "run.toml, line 2: epochs: invalid type: string \"three\", expected a whole number not below 0",
        ),
        (
            "[training]\nepochs = -1\n",
            "run.toml, line 2: epochs: invalid value: integer `-1`, expected a whole number not below 0",
        ),
        (
            "[network]\nname = \"medium\"\n",
            "run.toml, line 2: network.name is medium, expected small, large or fc-3",
        ),
        ("[training\n", "run.toml, line 1: "),
        (
            "[evaluation]\neps = [0]\n",
            "run.toml, line 2: eps is \"0\", expected a positive number ",
        ),
    ];
    for (text, start) in cases {
        let error = RunConfig::parse("run.toml", text).unwrap_err();
        assert!(matches!(error, Error::ConfigSyntax { .. }));
        let message = error.to_string();
        assert!(message.starts_with(start) && !message.contains('\n'), "{message}");
    }
}

#[test]
fn values_outside_their_domain_are_refused_by_key() {
    let cases = [
        ("[training]\nepochs = 0", "training.epochs is 0, expected 1 to 1000000000"),
        ("[training]\nbatch_size = 0", "training.batch_size is 0, expected 1 to 1000000000"),
        (
            "[training]\nlearning_rate = 0.0",
            "training.learning_rate is 0, expected a positive number",
        ),
        (
            "[training]\nlearning_rate = inf",
            "training.learning_rate is inf, expected a positive number",
        ),
        ("[training]\nmargin = nan", "training.margin is NaN, expected a positive number"),
        ("[data]\ntrain_limit = 0", "data.train_limit is 0, expected 1 to 1000000000"),
        ("[data]\ntest_limit = 0", "data.test_limit is 0, expected 1 to 1000000000"),
        ("[evaluation]\nbatch_size = 0", "evaluation.batch_size is 0, expected 1 to 1000000000"),
        (
            "[evaluation]\neps = []",
            "evaluation.eps is [], expected at least one radius, in ascending order",
        ),
        (
            "[evaluation]\neps = [2, 1]",
            "evaluation.eps is [2, 1], expected at least one radius, in ascending order",
        ),
        (
            "[evaluation]\nattack_eps = [1, 1.0]",
            "evaluation.attack_eps is [1, 1], expected at least one radius, in ascending order",
        ),
        ("[evaluation.pgd]\nsteps = 0", "evaluation.pgd.steps is 0, expected 1 to 1000000000"),
        (
            "[evaluation.pgd]\nstep_size = -0.1",
            "evaluation.pgd.step_size is -0.1, expected a positive number",
        ),
        (
            "[evaluation.pgd]\nkappa = -1.0",
            "evaluation.pgd.kappa is -1, expected a number not below 0",
        ),
        (
            "[evaluation.strong_pgd]\nrestarts = 65537",
            "evaluation.strong_pgd.restarts is 65537, expected 0 to 65536",
        ),
    ];
    for (text, expected) in cases {
        let error = RunConfig::parse("run.toml", text).unwrap_err();
        assert!(matches!(error, Error::ConfigValue { .. }), "{error}");
        assert_eq!(error.to_string(), expected);
    }
    let mut config = RunConfig::default();
    config.training.seed = u64::MAX;
    assert_eq!(
        config.validate().unwrap_err().to_string(),
        "training.seed is 18446744073709551615, expected 0 to 9223372036854775807"
    );
}

#[test]
fn a_missing_file_is_named() {
    let error = RunConfig::read(Path::new("no/such/run.toml")).unwrap_err().to_string();
    assert!(error.starts_with("cannot read no/such/run.toml: "), "{error}");
}

#[test]
fn a_data_set_brings_its_own_defaults_and_what_is_written_stays() {
    let cifar = RunConfig::parse("text", "[data]\ndataset = \"cifar10\"").unwrap();
    assert_eq!(cifar, RunConfig::of(DatasetName::Cifar10));
    assert_eq!(cifar.training.margin, 0.5 * std::f64::consts::SQRT_2);
    assert_eq!(cifar.training.augmentation, AugmentationKind::CropFlip);
    assert_eq!(cifar.evaluation.attack_eps[0].text(), "36/255");
    assert!(cifar.evaluation.eps.iter().any(|eps| eps.text() == "36/255"));

    let text = "[training]\nmargin = 2.0\n[evaluation]\nattack_eps = [0.3]\n";
    let config = RunConfig::parse_for("text", text, Some(DatasetName::Cifar10)).unwrap();
    assert_eq!((config.training.margin, config.data.dataset.clone()), (2.0, DatasetName::Cifar10));
    assert_eq!(config.training.augmentation, AugmentationKind::CropFlip);
    assert_eq!(config.evaluation.attack_eps[0].text(), "0.3");
    assert_eq!(config.evaluation.eps, cifar.evaluation.eps);
    // a file that writes everything out keeps it, as the one of a run directory does
    let again = RunConfig::parse("again", &config.to_toml().unwrap()).unwrap();
    assert_eq!(again, config);

    let own = RunConfig::parse("text", "[data]\ndataset = \"images:some/where\"").unwrap();
    assert_eq!(own.data.dataset, DatasetName::Images("some/where".into()));
    assert_eq!(own.training.augmentation, AugmentationKind::None);
}

#[test]
fn names_are_those_of_the_files_and_others_are_refused() {
    for name in ["mnist", "cifar10", "synthetic", "idx:a/b", "images:c"] {
        assert_eq!(name.parse::<DatasetName>().unwrap().to_string(), name);
    }
    for name in ["cifar", "idx:", "images:", "imagenet:x", ""] {
        let text = name.parse::<DatasetName>().unwrap_err().to_string();
        let expected = "expected mnist, cifar10, stl10, synthetic, idx:DIR or images:DIR";
        assert_eq!(text, format!("data.dataset is {name}, {expected}"));
    }
    for name in ["bcop", "rko", "ossn", "svcm", "rk-l2ne", "bcop-fixed", "unconstrained", "bjorck"]
    {
        assert_eq!(name.parse::<Method>().unwrap().to_string(), name);
    }
    let text = "haar".parse::<Method>().unwrap_err().to_string();
    let start =
        "network.layer is haar, expected bjorck or a method that this version of lipconv has: ";
    assert!(text.starts_with(start) && text.contains("bcop"), "{text}");
    let error = RunConfig::parse("run.toml", "[network]\nlayer = \"haar\"\n").unwrap_err();
    assert!(error.to_string().starts_with("run.toml, line 2: network.layer is haar"), "{error}");
    for (network, layer, fits) in [
        ("fc-3", "bjorck", true),
        ("fc-3", "unconstrained", true),
        ("fc-3", "bcop", false),
        ("small", "bjorck", false),
    ] {
        let text = format!("[network]\nname = \"{network}\"\nlayer = \"{layer}\"");
        assert_eq!(RunConfig::parse("text", &text).is_ok(), fits, "{network} {layer}");
    }
}

const OFFSET_PER_RADIUS: f64 = 2.0 * std::f64::consts::SQRT_2;

#[test]
fn a_recipe_aims_at_the_radius_of_its_data() {
    let certified = Recipe::named("certified").unwrap();
    for (dataset, eps) in [(DatasetName::Mnist, 0.79), (DatasetName::Cifar10, 36.0 / 255.0)] {
        let mut config = certified.config(dataset.clone()).unwrap();
        let loss = config.training.cross_entropy.unwrap();
        assert_eq!(loss.offset, OFFSET_PER_RADIUS * eps, "{dataset}");
        assert_eq!(config.training.schedule, ScheduleKind::Cosine);
        let mirrored = config.training.augmentation == AugmentationKind::CropFlip;
        assert_eq!(mirrored, dataset == DatasetName::Cifar10);
        config.aim_at(&"2/8".parse().unwrap());
        let offset = config.training.cross_entropy.unwrap().offset;
        assert_eq!(offset, OFFSET_PER_RADIUS / 4.0);
    }
    let mut paper = Recipe::named("paper").unwrap().config(DatasetName::Mnist).unwrap();
    assert_eq!((paper.training.epochs, paper.training.cross_entropy), (200, None));
    paper.aim_at(&"1.5".parse().unwrap());
    assert_eq!(paper.training.margin, 1.5 * std::f64::consts::SQRT_2);
}

#[test]
fn every_recipe_survives_being_printed_and_says_its_source() {
    assert!(Recipe::names().contains(&"paper") && Recipe::names().contains(&"certified"));
    for name in Recipe::names() {
        let recipe = Recipe::named(name).unwrap();
        assert!(!recipe.source.is_empty() && !recipe.trade_off.is_empty(), "{name}");
        for dataset in [DatasetName::Mnist, DatasetName::Cifar10, DatasetName::Stl10] {
            let config = recipe.config(dataset).unwrap();
            let again = RunConfig::parse(name, &config.to_toml().unwrap()).unwrap();
            assert_eq!(again, config, "{name}");
        }
    }
    let text = Recipe::named("certifed").unwrap_err().to_string();
    assert_eq!(text, "certifed: unknown recipe, did you mean `certified`?");
    let text = Recipe::named("best").unwrap_err().to_string();
    assert_eq!(text, "best: unknown recipe, expected one of certified, large-radii, paper");
}

#[test]
fn a_short_run_warms_up_over_a_sixth_at_most() {
    let layers = Experiment::find("layers").unwrap();
    let recipe = &layers.recipes["layers"];
    let planned = recipe.config(DatasetName::Cifar10).unwrap().training;
    assert_eq!(planned.warm_up, 2.0);
    for (epochs, warm_up) in [(1, 1.0 / 6.0), (6, 1.0), (12, 2.0), (200, 2.0)] {
        let mut config = RunConfig::of(DatasetName::Cifar10);
        config.training.epochs = epochs;
        let training = config.trained_by(recipe).unwrap().training;
        assert_eq!((training.epochs, training.warm_up), (epochs, warm_up));
    }
}

#[test]
fn settings_of_a_recipe_are_checked() {
    let entropy = |settings: &str| format!("[training]\ncross_entropy = {{ {settings} }}\n");
    let cases = [
        (
            entropy("offset = 0.4, temperature = 0"),
            "training.cross_entropy: temperature is 0, expected a positive number",
        ),
        (
            entropy("offset = nan, temperature = 1"),
            "training.cross_entropy: offset is NaN, expected a number of at least 0",
        ),
        (
            entropy("offset = -1.0, temperature = 1.0"),
            "training.cross_entropy: offset is -1, expected a number of at least 0",
        ),
        (
            entropy("offset = 1.0, temperature = inf"),
            "training.cross_entropy: temperature is inf, expected a positive number",
        ),
        (
            entropy("offset = 1.0, temperature = 1.0, anealing = 2.0"),
            "t.toml, line 2: unknown key `training.cross_entropy.anealing`, did you mean `training.cross_entropy.annealing`?",
        ),
        (
            "[training]\nwarm_up = 12.0\n".into(),
            "training.warm_up is 12, expected at least 0 and fewer than the epochs",
        ),
        (
            "[training]\naveraging = { type = \"exponential\", decay = 1.0 }\n".into(),
            "training.averaging: decay is 1, expected a number in [0, 1)",
        ),
        (
            "[training]\nrand_augment = { magnitude = 31 }\n".into(),
            "training.rand_augment: magnitude is 31, expected 0 to 30",
        ),
        (
            "[training]\nrand_augment = { probability = nan }\n".into(),
            "training.rand_augment: probability is NaN, expected a number in [0, 1]",
        ),
        (
            "[training]\nrand_augment = { magnitudes = 9 }\n".into(),
            "t.toml, line 2: unknown key `training.rand_augment.magnitudes`, did you mean `training.rand_augment.magnitude`?",
        ),
        (
            "[network]\nwidth = 2.0\n".into(),
            "network.width is 2, expected absent: large alone has a width",
        ),
        (
            "[network]\nname = \"fc-3\"\nlayer = \"bjorck\"\nmore_convolutions = 1\n".into(),
            "network.more_convolutions is 1, expected 0 for fc-3",
        ),
        (
            "[network]\nhead = \"lnn\"\n".into(),
            "t.toml, line 2: unknown method of a dense layer `lnn`, expected one of ",
        ),
    ];
    for (text, expected) in cases {
        let found = RunConfig::parse("t.toml", &text).unwrap_err().to_string();
        assert!(found.starts_with(expected), "{text}: {found}");
        assert!(!found.contains('\n'));
    }
}

#[test]
fn keys_are_read_as_they_are_written() {
    for text in ["small", "large", "fc-3", "kw-small"] {
        assert_eq!(text.parse::<Net>().unwrap().to_string(), text);
    }
    for text in ["maxmin", "relu", "groupsort:4"] {
        let activation: Activation = text.parse().unwrap();
        assert_eq!(serde_json::to_value(activation).unwrap(), text);
        assert_eq!(activation.to_string(), text);
    }
    for text in ["MaxMin", "groupsort", "groupsort:0", "groupsort:-1", ""] {
        assert!(text.parse::<Activation>().is_err(), "{text}");
    }
    for text in ["bcop", "bcop-fixed", "rk-l2ne", "unconstrained", "sll", "bjorck", "published"] {
        assert_eq!(text.parse::<Method>().unwrap().to_string(), text);
    }
    for text in ["mnist", "stl10", "idx:some/where", "images:photographs"] {
        assert_eq!(text.parse::<DatasetName>().unwrap().to_string(), text);
    }
}

#[test]
fn titles_are_those_of_the_paper() {
    let titles = ["bcop", "bcop-fixed", "rk-l2ne", "ossn", "unconstrained", "bjorck"];
    let titles = titles.map(|text| text.parse::<Method>().unwrap().title());
    assert_eq!(titles, ["BCOP", "BCOP-fixed", "RK-L2NE", "OSSN", "unconstrained", "Björck"]);
    assert_eq!(DatasetName::Images("some/photographs".into()).title(), "photographs");
}
