// Reads a JSON list of texts, and writes what Harper makes of them where the first suggestion of each finding is taken.
// Names, which it takes for misspelt words, stay. Run as node grammar.mjs FOLDER DIALECT, with the folder of harper.js.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, dialect] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(`${folder}/dist/${name}.js`).href);
const { Dialect, LocalLinter } = await load("index");
const { binary } = await load("binary");
const linter = new LocalLinter({ binary, dialect: Dialect[dialect] });

const isName = (lint) => lint.lint_kind() === "Spelling" && /\p{Lu}/u.test(lint.get_problem_text());

async function corrected(text) {
  const found = await linter.lint(text, { language: "plaintext" });
  const lints = found.filter((lint) => !isName(lint)).map((lint) => ({ lint, start: lint.span().start, end: lint.span().end }));
  lints.sort((one, other) => other.start - one.start || one.end - other.end); // from the end, so that offsets stay
  let before = Infinity;
  for (const { lint, start, end } of lints) {
    const [first] = lint.suggestions();
    if (first === undefined || end > before) continue;
    text = await linter.applySuggestion(text, lint, first);
    before = start;
  }
  return text;
}

const texts = JSON.parse(readFileSync(0, "utf8"));
const changed = [];
for (const text of texts) changed.push(await corrected(text));
process.stdout.write(JSON.stringify(changed));
