"""sbom_check.py MADE TARGET OUT: writes the list without what is not used; fails if something that is used is not in it.

cargo-cyclonedx asks `cargo metadata`, which counts what optional features could bring. What is linked, and what runs while
building, is what `cargo tree` says; nothing that only tests use is in either.
"""

import json
import subprocess
import sys

PACKAGE = "ollama-fleet-operator"


def tree(target: str, edges: str) -> set[tuple[str, str]]:
    command = ["cargo", "tree", "--locked", "--package", PACKAGE, "--target", target, "--edges", edges]
    command += ["--prefix", "none", "--format", "{p}"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    found = set()
    for line in lines:
        words = line.split()
        if len(words) >= 2:
            found.add((words[0], words[1].lstrip("v")))
    return found


def main() -> int:
    made, target, out = sys.argv[1:]
    with open(made, encoding="utf-8") as file:
        sbom = json.load(file)
    # Build scripts and macros run while building, and so belong to what has to be trusted.
    used = tree(target, "normal,build")
    own = sbom["metadata"]["component"]
    parts = [part for part in sbom.get("components", []) if (part["name"], part["version"]) in used]
    kept = {part["bom-ref"] for part in parts} | {own["bom-ref"]}
    sbom["components"] = parts
    sbom["dependencies"] = [
        {**entry, "dependsOn": [ref for ref in entry.get("dependsOn", []) if ref in kept]}
        for entry in sbom.get("dependencies", [])
        if entry["ref"] in kept
    ]
    listed = {(part["name"], part["version"]) for part in parts} | {(own["name"], own["version"])}
    problems = [] if sbom.get("bomFormat") == "CycloneDX" else ["it is not CycloneDX"]
    problems += [f"{' '.join(part)} is used and not listed" for part in sorted(used - listed)]
    for part in parts:
        if not part.get("purl", "").startswith("pkg:cargo/") or not part.get("licenses"):
            problems.append(f"{part['name']} has no package URL or no licence")
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return 1
    # Where the sources were on the machine that made it is nobody's business, and would make every list another one.
    text = json.dumps(sbom, indent=1, sort_keys=True)
    own_folder = f"path+file://{subprocess.run(['pwd'], capture_output=True, text=True, check=True).stdout.strip()}"
    text = text.replace(own_folder, "path+file:///source")
    with open(out, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    print(f"==> {out}: {len(listed)} packages, all that are linked or run while building")
    return 0


if __name__ == "__main__":
    sys.exit(main())
