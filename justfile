# Recipes for work on Palinode: `just RECIPE`. `.ci/run` runs everything that must hold before a change lands; what takes longer is here.

# lists the recipes
default:
    @just --list

# builds the program
build:
    cargo build --release

# all tests
test:
    cargo test --release --workspace

# the comparison with golden numbers (tests/golden/README.md)
golden folder="../shared/golden":
    PALINODE_GOLDEN={{ folder }} cargo test --release --workspace --test golden

# everything that must hold before a change lands
ci:
    .ci/run

# the formatter and clippy
lint:
    cargo fmt --all --check && cargo clippy --release --workspace --all-targets -- -D warnings

# the documentation of all crates
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --release --no-deps --workspace

# the documentation as a site, in target/site
site:
    python3 scripts/make_site.py

# opens every page of the site in Chromium, on a phone's width too
check-site: site
    python3 scripts/check_site.py

# writes the pages of commands and stages anew, from what the program says
reference:
    cargo build --release && python3 scripts/make_reference.py

# runs the commands of the tutorial's short pages
tutorial:
    cargo build --release && python3 scripts/run_tutorial.py

# runs its long pages: a real model, and a Slurm of one's own (needs the packages slurm-wlm and munge)
tutorial-long:
    cargo build --release && python3 scripts/run_tutorial.py --long

# writes the JSON Schemas of pipelines and of parts anew
schema:
    cargo run --release -- schema --overwrite --output docs/pipeline.schema.json
    cargo run --release -- schema --overwrite --part --output docs/part.schema.json

# holds the schemas against check-jsonschema and yaml-language-server
check-schema:
    cargo build --release && python3 scripts/check_schema.py

# the README's demo
demo:
    cargo run --release -- run pipelines/demo.yaml

# kills real runs at random moments, so many times
kills count="100":
    PALINODE_KILLS={{ count }} cargo test --release --workspace --test killed -- --nocapture

# runs the demo on a real Slurm on this machine, with failures, and kills its coordinator so many times
slurm kills="20":
    cargo build --release && KILLS={{ kills }} SEED=$RANDOM scripts/check_slurm.sh

# runs into a full disk (Linux, needs namespaces)
full-disk:
    cargo test --release --workspace --test full_disk -- --nocapture

# two file systems in turn at one place (needs root and mke2fs)
mounts:
    cargo test --release --workspace --test mounts -- --nocapture

# feeds damaged checkpoints to the model's readers
fuzz-checkpoint minutes="10":
    cargo run --release -p palinode-model --example fuzz-checkpoint -- --minutes {{ minutes }}

# feeds damaged records and corpora to the data readers
fuzz-data minutes="10":
    cargo run --release -p palinode-data --example fuzz -- --minutes {{ minutes }}

# feeds damaged second moments of NumPy to their reader
fuzz-npz minutes="10":
    cargo run --release -p palinode-edit --example fuzz-npz -- --minutes {{ minutes }}

# feeds random pipeline files to the loader
fuzz-pipeline minutes="10":
    cargo run --release -p palinode-engine --example fuzz-pipeline -- --minutes {{ minutes }}

# criterion's benchmarks
bench:
    cargo bench --workspace --bench kernels --bench stages

# builds the program with CUDA, which needs no toolkit
cuda:
    cargo build --release --features cuda

# runs the demo on an emulated GPU (tools/emulated-gpu/README.md)
emulated-gpu: cuda
    tools/emulated-gpu/run.sh target/release/palinode run pipelines/demo.yaml --device cuda --store "$(mktemp -d)" --set stages.out.with.overwrite=true

# compares every stage on an emulated GPU with the CPU
emulated-gpu-check: cuda
    tools/emulated-gpu/run.sh scripts/gpu-check.sh --palinode target/release/palinode --shapes none

# compares and times every stage on a real GPU
gpu-check: cuda
    scripts/gpu-check.sh --palinode target/release/palinode

# makes the fixtures of the model families anew (needs torch, transformers, safetensors)
fixtures:
    python3 scripts/make_family_fixtures.py

# the Python wheel in a fresh environment, with torch, transformers and peft: gigabytes
check-python:
    cargo build --release && python3 scripts/check_wheel.py --models

# executes the notebooks of docs/notebooks and leaves their pictures (needs what scripts/notebook.py lists)
notebook pictures="target/notebooks":
    cargo build --release && python3 scripts/notebook.py --pictures {{ pictures }}

# the release archive of this machine
archive:
    cargo build --release && python3 scripts/make_archive.py

# installs in a bare Debian by each way and runs the demo there (needs root)
check-install: archive
    python3 scripts/check_wheel.py && tools/install/check_chroot.sh archive wheel source

# licences, sources and banned packages (needs cargo-deny)
deny:
    cargo deny check licenses bans sources

# dependencies that nothing uses (needs cargo-machete)
machete:
    cargo machete --with-metadata
