//! Every message about a pipeline file, as a person reads it.

mod common;

use common::Bench;

/// Loads each file and puts all messages into one snapshot.
fn check(name: &str, rows: &[(&str, &[&str])]) {
    check_beside(name, &[], rows);
}

/// The same with other files beside the pipeline.
fn check_beside(name: &str, files: &[(&str, &str)], rows: &[(&str, &[&str])]) {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("folder")).unwrap();
    let mut all = String::new();
    for (file, text) in files {
        std::fs::write(bench.path(file), text).unwrap();
        all.push_str(&format!("════════ {file}\n{text}\n"));
    }
    for (yaml, set) in rows {
        let text = match bench.load(yaml, set) {
            Ok(pipeline) => {
                let warnings =
                    pipeline.warnings.0.iter().map(|it| format!("warning: line {}: {}\n", it.span.line, it.message));
                warnings.collect::<String>() + &format!("fine: {} instances\n", pipeline.instances.len())
            }
            Err(mistakes) => format!("{mistakes}kind {:?}\n", mistakes.kind()),
        };
        all.push_str("────────\n");
        for set in *set {
            all.push_str(&format!("--set {set}\n"));
        }
        all.push_str(&format!("{yaml}\n┄┄┄┄\n{text}"));
    }
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, all.replace(bench.dir.path().to_str().unwrap(), "<dir>"));
    });
}

#[test]
fn syntax() {
    check(
        "syntax",
        &[
            ("name: a\nstages: {a: {uses: text, with: {value: hi}}}", &[]),
            ("name: [a\nstages: {}", &[]),
            ("name: a\n  stages: {}", &[]),
            ("name: a\n\tstages: {}", &[]),
            ("", &[]),
            ("- a\n- b", &[]),
            ("name: a\nstages:\n  a: !tag {uses: text}", &[]),
            ("name: a\n---\nname: b", &[]),
            ("name: a\nname: b\nstages:\n  ä: {uses: text}\n  b: {uses: text, with: {value: é, value: ö}}", &[]),
            ("name: a\nvars: {x: .inf}\nstages: {}", &[]),
        ],
    );
}

/// What looks like a pipeline and says something else than its author meant.
#[test]
fn not_as_meant() {
    let deep = format!("name: a\nvars: {{x: {}{}}}\nstages: {{}}", "[".repeat(1001), "]".repeat(1001));
    check(
        "not_as_meant",
        &[
            ("\u{feff}name: a\nstages: {a: {uses: text, with: {value: hi}}}", &[]),
            (
                "name: a\nvars: {all: &all {value: hi, repeat: 2}}\nstages: {a: {uses: text, with: {<<: *all, repeat: 1}}}",
                &[],
            ),
            ("name: a\nstages: {a: {<<: [{uses: text}, {uses: join, with: {value: hi}}]}}", &[]),
            ("name: a\nstages: {a: {<<: text}}", &[]),
            ("name: a\nstages: {a: {uses: text, with: {value: hi, repeat: 99999999999999999999999}}}", &[]),
            ("name: \"b\\0\"\nstages: {}", &[]),
            ("name: a\nmatrix: {seed: [1, 2, 3], one: [1]}\nstages: {a: {uses: text, with: {value: hi}}}", &[]),
            (
                "name: a\nmatrix: {one: [1]}\nvars: {x: 1, y: '${vars.x}', z: hi}\nstages: {a: {uses: text, with: {value: '${vars.z}'}}}",
                &[],
            ),
            ("name: a\nvars: {word: hi}\nstages: {a: {uses: text, with: {value: '${vars.word}'}}}", &["vars.wrod=ho"]),
            (
                "name: a\nvars: {word: hi}\nstages: {a: {uses: text, with: {value: '${vars.word}'}}}",
                &["vars.word=.nan"],
            ),
            (
                "name: a\nmatrix: {a: '${range(1000)}', b: '${range(1000)}'}\nstages: {a: {uses: text, with: {value: 'x${matrix.a}${matrix.b}'}}}",
                &[],
            ),
        ],
    );
    let bench = Bench::new();
    assert!(bench.load(&deep, &[]).unwrap_err().to_string().contains("more than 1000 deep"));
}

/// Where a stage writes is compared with where others write and read, by where paths really lead.
#[test]
fn outputs_stay_out_of_the_way() {
    let bench = Bench::new();
    std::fs::create_dir_all(bench.path("real/model")).unwrap();
    std::os::unix::fs::symlink(bench.path("real"), bench.path("link")).unwrap();
    std::fs::write(bench.path("real/model/in.txt"), "x").unwrap();
    let load = |stages: &str| {
        let head = "name: a\nstages:\n  a: {uses: text, with: {value: hi}}\n  r: {uses: read, with: {path: real/model/in.txt}}\n";
        bench
            .load(&format!("{head}{stages}"), &[])
            .map_or_else(|mistakes| mistakes.0[0].message.clone(), |_| String::new())
    };
    let write =
        |name: &str, path: &str| format!("  {name}: {{uses: write, inputs: {{text: a}}, with: {{path: '{path}'}}}}\n");
    assert_eq!(load(&write("w", "out")), "");
    assert_eq!(load(&write("w", "")), "`path` of `w` is empty");
    assert_eq!(load(&write("w", ".")), "`w` would write into the pipeline's own folder, or one around it");
    assert_eq!(load(&write("w", "out/../..")), "`w` would write into the pipeline's own folder, or one around it");
    for path in ["real/model", "link/model", "out/../real/model", "link/model/in.txt", "link", "link/../real/model/"] {
        let said = load(&write("w", path));
        assert!(said.starts_with("`w` would overwrite what `r` reads: ") && said.ends_with("in.txt"), "{path}: {said}");
    }
    for (one, other) in [("out/a", "out/../out/a"), ("link/a", "real/a"), ("a", "./a/")] {
        let said = load(&(write("w", one) + &write("v", other)));
        assert!(said.contains("both write to"), "{one} {other}: {said}");
    }
}

#[test]
fn structure() {
    check(
        "structure",
        &[
            ("name: a\nstage: {}\nvar: {}", &[]),
            ("name: ''\nstages:\n  a: {use: text}\n  b: text\n  c d: {uses: text}", &[]),
            ("---\n", &[]),
            ("name: a\nnumerics: strct\nstages: {}", &[]),
            ("name: a\nvars: [1]\nmatrix: 3\nstages:\n- a\n- b", &[]),
            (
                "name: [a]\nvars: {a-b: 1}\nmatrix: {c-d: [1]}\nstages:\n  a: {uses: [text], inputs: {x: [a]}, with: {value: a}}",
                &[],
            ),
            ("name: a\nmatrix: {x: 1, y: [], z: [1, 2, 1]}\nstages: {}", &[]),
            ("name: a\nmatrix: {x: [1, 2], exclude: [{y: 1}, 3], include: [{}], include: 1}\nstages: {}", &[]),
        ],
    );
}

#[test]
fn graph() {
    check(
        "graph",
        &[
            ("name: a\nstages:\n  a: {uses: txet, with: {value: a}}\n  b: {uses: nothing_like_it}", &[]),
            (
                "name: a\nstages:\n  greeting: {uses: text, with: {value: a}}\n  b: {uses: join, inputs: {text: greting}}",
                &[],
            ),
            ("name: a\nstages:\n  a: {uses: text, with: {value: a}}\n  b: {uses: join, inputs: {txt: a}}", &[]),
            ("name: a\nstages:\n  a: {uses: text, with: {value: a}}\n  b:\n    uses: join", &[]),
            (
                "name: a\nstages:\n  a: {uses: text, with: {value: a}}\n  n: {uses: count, inputs: {text: a}}\n  b:\n    uses: join\n    inputs:\n      text: n",
                &[],
            ),
            (
                "name: a\nstages:\n  a: {uses: join, inputs: {text: b}}\n  b: {uses: join, inputs: {text: c}}\n  c: {uses: join, inputs: {text: a}}\n  d: {uses: join, inputs: {text: d}}\n  e: {uses: join, inputs: {text: a}, with: {keep: no}}",
                &[],
            ),
            (
                "name: a\nmatrix: {x: [1, 2]}\nstages:\n  a: {uses: text, with: {value: 'a${matrix.x}'}}\n  w: {uses: write, inputs: {text: a}, with: {path: ./out}}\n  v: {uses: write, inputs: {text: a}, with: {path: 'out${matrix.x}'}}\n  u: {uses: write, inputs: {text: a}, with: {path: 'out${matrix.x}'}}",
                &[],
            ),
            // A stage with a mistake does not make those after it wrong.
            (
                "name: a\nstages:\n  a: {uses: text}\n  b: {uses: join, inputs: {text: a}}\n  c: {uses: join, inputs: {text: b}}",
                &[],
            ),
        ],
    );
}

#[test]
fn parameters() {
    check(
        "parameters",
        &[
            ("name: a\nstages:\n  a: {uses: text, with: {valu: a, repeat: -1, batch: many, case: uper}}", &[]),
            ("name: a\nstages:\n  a:\n    uses: text\n    with:\n      value: [1, 2]\n      repeat: 1.5", &[]),
            (
                "name: a\nstages:\n  a: {uses: text, with: 3}\n  b: {uses: text}\n  c: {uses: count, inputs: {text: a}, with: {x: 1}}",
                &[],
            ),
            ("name: a\nstages:\n  a: {uses: text, with: {value: a, repeat: 101}}", &[]),
            (
                "name: a\nstages:\n  a: {uses: text, with: {value: abc}}\n  b: {uses: join, inputs: {text: a}, with: {keep: 4}}",
                &[],
            ),
            (
                "name: a\nstages:\n  a: {uses: read, with: {path: no/such.txt}}\n  b: {uses: read, with: {path: folder}}",
                &[],
            ),
            (
                "name: a\nmatrix: {n: [1, 101, 102]}\nstages:\n  a: {uses: text, with: {value: a, repeat: '${matrix.n}'}}",
                &[],
            ),
        ],
    );
}

#[test]
fn expressions() {
    let file = |value: &str| {
        format!(
            "name: a\nvars: {{word: hi, numbers: [1, 2]}}\nmatrix: {{axis: [x, y]}}\nstages:\n  a: {{uses: text, with: {{value: \"{value}\"}}}}\n  reader: {{uses: text, with: {{value: '${{matrix.axis}}'}}}}"
        )
    };
    let rows: Vec<String> = [
        "${vars.word}-${matrix.axis}",
        "$${vars.word}",
        "${vars.wrod}",
        "${matrix.axes}",
        "${word}",
        "${axis} and ${nothing}",
        "${vars.word",
        "${vars.word +}",
        "${vars.numbers}",
        "so ${vars.numbers}",
        "${vars.numbers[7]}",
        "${vars.word / 2}",
        "${range(3)[2] ~ ''}",
        "${range(1, 2, 0)}",
    ]
    .iter()
    .map(|value| file(value))
    .collect();
    let none: &[&str] = &[];
    let mut rows: Vec<(&str, &[&str])> = rows.iter().map(|row| (row.as_str(), none)).collect();
    rows.push(("name: a\nvars: {a: '${vars.b}', b: 1, c: '${vars.b + 1}'}\nstages:\n  a: {uses: text, with: {value: a, repeat: '${vars.c}'}}", &[]));
    check("expressions", &rows);
}

#[test]
fn limits() {
    let file = |limits: &str| {
        format!(
            "name: a\nmatrix: {{n: [1, x]}}\nstages:\n  reader: {{uses: text, with: {{value: 'x${{matrix.n}}'}}}}\n  a:\n    uses: text\n    with: {{value: a}}\n    {limits}"
        )
    };
    let rows: Vec<String> = [
        "retries: 3\n    timeout: 1h30m",
        "retries: '${matrix.n}'",
        "retries: -1\n    timeout: 30",
        "retry: 1\n    timeout: half an hour",
        "timeout: [1m]\n    retries: 1000",
    ]
    .iter()
    .map(|limits| file(limits))
    .collect();
    let none: &[&str] = &[];
    let rows: Vec<(&str, &[&str])> = rows.iter().map(|row| (row.as_str(), none)).collect();
    check("limits", &rows);
}

#[test]
fn overrides() {
    let file = "name: a\nvars: {n: 1, list: [1, 2]}\nstages:\n  greeting: {uses: text, with: {value: hi, repeat: '${vars.n}'}}\n  bare: {uses: join, inputs: {text: greeting}}\n  third: {uses: text, with: {value: hi, repeat: '${vars.list[1]}'}}";
    check(
        "overrides",
        &[
            (file, &["vars.n=3", "stages.greeting.with.value=ho", "stages.bare.with.keep=1", "vars.list[1]=5"]),
            (file, &["vars.m=3", "stages.greting.with.value=ho", "nonsense", "name.x=1", "vars.list[2]=1", "var.n=1"]),
            (file, &["stages.greeting.with.repeat=often", "stages.greeting.with.vlaue=x", "vars.n=[1"]),
            (file, &["stages.bare.inputs.text=bare"]),
            // Nothing reads the list any more.
            (file, &["stages.third.with.repeat=1", "vars.list[1]=5"]),
        ],
    );
}

#[test]
fn includes() {
    check_beside(
        "includes",
        &[
            (
                "base.yaml",
                "vars: {n: 1, list: [1, 2, 3]}\nstages:\n  greeting: {uses: text, with: {value: hi, repeat: '${vars.n}'}}",
            ),
            ("more.yaml", "include: base.yaml\nvars: {n: 2}\nstages:\n  bare: {uses: join, inputs: {text: greeting}}"),
            (
                "wrong.yaml",
                "stages:\n  greeting: {uses: txet, with: {value: hi}}\n  b: {uses: text}\n  b: {uses: text}",
            ),
            ("folder/deep.yaml", "include: ../more.yaml\nstages:\n  greeting: {with: {repeat: many}}"),
            ("folder/round.yaml", "include: [trip.yaml]"),
            ("folder/trip.yaml", "include: round.yaml"),
            ("broken.yaml", "stages: [a"),
            ("list.yaml", "- a"),
        ],
        &[
            ("name: a\ninclude: more.yaml", &[]),
            (
                "include: [more.yaml, base.yaml]\nname: a\nvars: {list: [5]}\nstages: {greeting: {with: {value: ho}}}",
                &["vars.n=3"],
            ),
            ("name: a\ninclude:\nstages: {}", &[]),
            // What `~` takes away is missed; what is left blank is as it was.
            ("name: a\ninclude: more.yaml\nstages:\n  greeting: ~\n  bare:", &[]),
            ("name: a\ninclude: more.yaml\nstages:\n  bare: ~\n  greeting: {with: {repeat: ~}}", &[]),
            (
                "name: a\ninclude: [wrong.yaml, folder/deep.yaml]\nstages:\n  bare: {inputs: {text: greting}}",
                &["vars.list[1]=2"],
            ),
            ("name: a\ninclude: base.yaml\nstages:\n  greeting: {with: {value: 3, vlaue: ho}}", &["vars.list[3]=2"]),
            ("name: a\ninclude: folder/round.yaml\nstages: []", &[]),
            (
                "name: a\ninclude: [bas.yaml, nothing.yaml, p.yaml, 3, {a: b}, '', '${vars.n}.yaml']\nstages: {x: {}}",
                &[],
            ),
            ("name: a\ninclude: [broken.yaml, list.yaml]", &[]),
        ],
    );
}
