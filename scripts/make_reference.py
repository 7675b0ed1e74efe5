#!/usr/bin/env python3
"""Writes the reference, docs/reference/, from what the program says of itself.

    python3 scripts/make_reference.py [--check] [PROGRAM]

PROGRAM is target/release/palinode where none is given. Pages of commands are made from --help, those of stages from `palinode stages`, and the
page of the pipeline file from `palinode schema`. With --check nothing is written: the exit status is 1 where a committed page is another one
than the program gives. Needs Python alone.
"""

import argparse
import difflib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs/reference"
MADE = "<!-- Written by scripts/make_reference.py from what the program says. Change the program, and run the script again. -->\n"
# Of every command, so that it is said once.
EVERYWHERE = ("-v, --verbose...", "-h, --help", "-V, --version")


class Program:
    def __init__(self, path):
        self.path = path

    def say(self, *args):
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("PALINODE_", "CLICOLOR"))}
        said = subprocess.run([self.path, *args], capture_output=True, text=True, env={**keep, "NO_COLOR": "1", "COLUMNS": "100"})
        if said.returncode:
            sys.exit(f"{self.path} {' '.join(args)}: exit code {said.returncode}\n{said.stderr}")
        return said.stdout


def escaped(text):
    """Plain text as Markdown; what stands between backticks is left alone."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*<|])", r"\\\1", part) for part in parts)


def code(text):
    return f"`{text}`"


def paragraphs(lines):
    """Wrapped lines as Markdown paragraphs: indented ones are code, those that begin with a dash are a list."""
    out, block = [], []

    def end():
        if not block:
            return
        if all(line.startswith("  ") for line in block) and not block[0].lstrip().startswith("- "):
            out.append("```text\n" + "\n".join(line[2:] for line in block) + "\n```")
        else:
            items = []
            for line in block:
                text = re.sub(r" +", " ", line.strip())
                if items and not text.startswith("- "):
                    items[-1] += " " + text
                else:
                    items.append(text)
            out.append("\n".join(escaped(item) for item in items))
        block.clear()

    for line in lines:
        if not line.strip():
            end()
            continue
        # A list begins a block of its own, or it would be a part of the paragraph before it.
        if block and line.lstrip().startswith("- ") and not block[-1].lstrip().startswith("- ") and not any(
            known.lstrip().startswith("- ") for known in block
        ):
            end()
        block.append(line)
    end()
    return "\n\n".join(out)


def sections(text):
    """A help text as what stands before the first heading, and the lines below each heading."""
    found, name = {"": []}, ""
    for line in text.rstrip().splitlines():
        heading = re.fullmatch(r"([A-Z][A-Za-z ]+):(.*)", line)
        if heading and (heading[1] == "Usage" or not heading[2]):
            name = heading[1]
            found[name] = [heading[2].strip()] if heading[2].strip() else []
        else:
            found[name].append(line)
    return found


def entries(lines):
    """Arguments or options: what is written, and the lines that explain it."""
    found = []
    for line in lines:
        short = re.match(r" {2,6}(\S.*?)(?: {2,}(\S.*))?$", line)
        if short and not line.startswith(" " * 8):
            found.append((short[1], [short[2]] if short[2] else []))
        elif found:
            found[-1][1].append(line.strip())
    return found


def entry(name, lines):
    fact = re.compile(r" ?\[(env|default): ([^\]]*)\]")
    facts = [found.groups() for line in lines for found in fact.finditer(line)]
    rest = [fact.sub("", line) for line in lines if line != "Possible values:"]
    said = ", ".join(f"{'environment variable' if kind == 'env' else kind} `{value.rstrip('=')}`" for kind, value in facts)
    return "\n\n".join(part for part in (f"**{code(name)}**", paragraphs(rest), f"*{said}*" if said else "") if part)


def one_command(program, words, level):
    found = sections(program.say(*words, "--help"))
    out = [f"{'#' * level} {'palinode ' + ' '.join(words)}", paragraphs(found.pop(""))]
    out.append("```text\n" + "\n".join(found.pop("Usage")).strip() + "\n```")
    commands = [name for name, _ in entries(found.pop("Commands", [])) if name != "help"]
    for title in ("Arguments", "Options"):
        listed = [pair for pair in entries(found.pop(title, [])) if pair[0] not in EVERYWHERE]
        if listed:
            out += [f"{'#' * (level + 1)} {title}", *(entry(*pair) for pair in listed)]
    for title, lines in found.items():
        out += [f"{'#' * (level + 1)} {title}"]
        if all(not line or line.startswith("  ") for line in lines):
            out.append("```text\n" + "\n".join(line[2:] for line in lines).strip() + "\n```")
        else:
            out.append(paragraphs(lines))
    parts = ["\n\n".join(out)]
    parts += [one_command(program, [*words, name], level + 1) for name in commands]
    return "\n\n".join(parts)


def commands(program):
    found = sections(program.say("--help"))
    listed, rows = entries(found["Commands"]), []
    for name, text in listed:
        yield f"commands/{name}.md", one_command(program, [name], 1)
        rows.append(f"| [`{name}`](commands/{name}.md) | {escaped(' '.join(text))} |")
    every = [pair for pair in entries(found["Options"]) if pair[0] in EVERYWHERE]
    codes = "\n".join(line.strip() for line in found["Exit codes"])
    yield "commands.md", "\n\n".join([
        "# Commands",
        paragraphs(found[""]),
        "```text\n" + "\n".join(found["Usage"]).strip() + "\n```",
        "\n".join(["| command | what it does |", "| --- | --- |", *rows]),
        "## Options of every command",
        *(entry(*pair) for pair in every),
        "## Exit codes",
        f"```text\n{codes}\n```",
    ])


def one_stage(program, name):
    facts = json.loads(program.say("stages", name, "--json"))
    lines = program.say("stages", name).rstrip().splitlines()
    found, title = {}, None
    for line in lines:
        if re.fullmatch(r"[A-Z ]+", line):
            title = line
            found[title] = []
        elif title:
            found[title].append(line)
    out = [f"# {name}", escaped(facts["summary"]), paragraphs(facts["doc"].splitlines())]
    ports = [
        f"| `{port['name']}` | {' or '.join(port['accepts'])} | {'yes' if port['required'] else 'no'} | {escaped(' '.join(port['doc'].split()))} |"
        for port in facts["inputs"]
    ]
    out.append("## Inputs")
    out.append("\n".join(["| port | reads | required | |", "| --- | --- | --- | --- |", *ports]) if ports else "None.")
    out += ["## Output", f"`{facts['output']}`"]
    out.append("## Parameters")
    listed = []
    for line in found.get("PARAMETERS", []):
        parameter = re.fullmatch(r"  (\S+)  (.*)", line)
        if parameter:
            listed.append((parameter[1], [parameter[2]], []))
        elif listed:
            # A type that is longer than a line goes on where explanations stand, up to the word that ends it.
            kind, text = listed[-1][1:]
            ended = re.search(r"; (required|optional|default .*|does not change results|changes last digits.*)$", kind[-1])
            (text if ended or text else kind).append(line[6:])
    for parameter, kind, text in listed:
        out += [f"**{code(parameter)}** {escaped(' '.join(kind))}", paragraphs(text)]
    if not listed:
        out.append("None.")
    said = []
    if facts["unkeyed"]:
        said.append("never change a bit of the result: " + ", ".join(map(code, facts["unkeyed"])))
    if facts["last_digits"]:
        said.append("change last digits alone: " + ", ".join(map(code, facts["last_digits"])))
    if said:
        out.append("Parameters that are not in every key, because they " + "; or because they ".join(said) + ".")
    example = "\n".join(line[2:] for line in found.get("IN A PIPELINE", []))
    out += ["## In a pipeline", f"```yaml\n{example.strip()}\n```", f"Version {facts['version']} of this stage."]
    return "\n\n".join(part for part in out if part)


def stages(program):
    rows = []
    for stage in json.loads(program.say("stages", "--json")):
        name = stage["name"]
        yield f"stages/{name}.md", one_stage(program, name)
        ports = [port["name"] if port["required"] else f"[{port['name']}]" for port in stage["inputs"]]
        rows.append(f"| [`{name}`](stages/{name}.md) | {escaped(stage['summary'])} | {', '.join(ports)} | {stage['output']} |")
    yield "stages.md", "\n\n".join([
        "# Stages",
        "A stage of a pipeline *uses* one of these kinds. Optional inputs are in brackets. `palinode stages NAME` shows the same in the terminal, "
        "and [the language of pipelines](../pipelines.md) says how stages are connected.",
        "\n".join(["| kind | what it does | inputs | output |", "| --- | --- | --- | --- |", *rows]),
    ])


def kind_of(field):
    if "$ref" in field:
        return field["$ref"].rsplit("/", 1)[-1]
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"] if value is not None)
    for many in ("oneOf", "anyOf"):
        if many in field:
            forms = (one for one in field[many] if one.get("type") != "null")
            return " or ".join(dict.fromkeys(kind_of(one) for one in forms))
    # Every field that may be left out may be left blank.
    kind = field.get("type", "any value")
    return " or ".join(one for one in kind if one != "null") if isinstance(kind, list) else kind


def pipeline_file(program):
    schema = json.loads(program.say("schema"))
    rows = []
    for name, field in schema["properties"].items():
        must = "yes" if name in schema.get("required", []) else "no"
        text = " ".join(field.get("description", "").split())
        rows.append(f"| `{name}` | {must} | {kind_of(field)} | {escaped(text)} |")
    yield "pipeline-file.md", "\n\n".join([
        "# The pipeline file",
        "The fields at the top of a pipeline file. [The language of pipelines](../pipelines.md) explains them with examples; the fields below a stage's "
        "`with:` are those of [its kind](stages.md).",
        "\n".join(["| field | required | value | |", "| --- | --- | --- | --- |", *rows]),
        "## For editors",
        "Two JSON Schemas hold all of it, parameters of every stage included: [pipeline.schema.json](../pipeline.schema.json) for pipelines, and "
        "[part.schema.json](../part.schema.json) for files that pipelines include. The first line of a file says which one an editor is to use:",
        "```yaml\n# yaml-language-server: $schema=path/to/pipeline.schema.json\n```",
        "`palinode schema` prints the first, `palinode schema --part` the second, always as the installed program has them.",
    ])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", nargs="?", default=str(ROOT / "target/release/palinode"), metavar="PROGRAM")
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    args = parser.parse_args()
    program = Program(args.program)
    pages = {name: f"{MADE}\n{text.rstrip()}\n" for make in (commands, stages, pipeline_file) for name, text in make(program)}
    there = {str(path.relative_to(FOLDER)): path.read_text() for path in sorted(FOLDER.rglob("*.md"))}
    wrong = sorted(name for name in pages.keys() | there.keys() if pages.get(name) != there.get(name))
    if args.check:
        for name in wrong:
            old, new = (text.get(name, "").splitlines() for text in (there, pages))
            print("\n".join(list(difflib.unified_diff(old, new, f"docs/reference/{name}", "what the program says", lineterm=""))[:20]))
        if wrong:
            sys.exit(f"{len(wrong)} pages of docs/reference are out of date: run scripts/make_reference.py")
        print(f"all {len(pages)} pages of docs/reference are what the program says")
        return
    for name in wrong:
        path = FOLDER / name
        if name in pages:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(pages[name])
        else:
            path.unlink()
    print(f"wrote {len(wrong)} of {len(pages)} pages below {FOLDER}")


if __name__ == "__main__":
    main()
