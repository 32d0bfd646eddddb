// The playground and the reference of one model, drawn from its openapi.json.
//
// Whatever comes from outside (names, labels, answers) is put in as text, never as markup. All addresses are relative,
// so that the pages work below a prefix.

const MOST_FIELDS = 64;
const MOST_ROWS = 50;
const MOST_LINES = 10;
const RETRY_MS = 1000;

const byId = (id) => document.getElementById(id);

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// Schemas

class Document {
  constructor(value) {
    this.value = value;
    this.predict = value.paths["/predict"].post;
    const media = this.predict.requestBody.content["application/json"];
    this.request = this.solid(media.schema);
    this.example = media.example;
  }

  solid(schema) {
    const target = schema?.$ref;
    if (typeof target !== "string") return schema ?? {};
    const name = target.slice(target.lastIndexOf("/") + 1);
    return this.value.components?.schemas?.[name] ?? {};
  }

  choices(schema) {
    const found = this.solid(schema);
    const choices = found.anyOf ?? found.oneOf ?? [found];
    return choices.map((one) => this.solid(one));
  }

  kinds(schema) {
    return new Set(this.choices(schema).flatMap((one) => one.type ?? []));
  }

  // One field for each argument, or for each column of a row; null when JSON is the better form.
  fields() {
    const inputs = this.isRows() ? this.request.properties.inputs : null;
    let found = this.request;
    if (inputs) found = this.choices(inputs).map((one) => this.solid(one.items)).find((one) => one?.type === "object");
    const names = Object.keys(found?.properties ?? {});
    if (!names.length || names.length > MOST_FIELDS) return null;
    return names.map((name) => ({
      name,
      schema: this.solid(found.properties[name]),
      required: (found.required ?? []).includes(name),
    }));
  }

  isRows() {
    const names = Object.keys(this.request.properties ?? {});
    return names.length === 1 && names[0] === "inputs" && this.value.info["x-corten-style"] === "rows";
  }

  // Whether the answer comes piece by piece.
  streams() {
    return "text/event-stream" in this.predict.responses["200"].content;
  }

  // What the answer is a file of, where it is one.
  answerKind() {
    const whole = this.solid(this.predict.responses["200"].content["application/json"].schema);
    return this.choices(whole.properties?.outputs).find((one) => one.contentEncoding === "base64")?.contentMediaType ?? "";
  }

  sample(schema, depth = 0) {
    const found = this.choices(schema)[0] ?? {};
    if (found.default !== undefined) return found.default;
    if (found.enum) return found.enum[0];
    const kind = Array.isArray(found.type) ? found.type[0] : found.type;
    if (kind === "string") return "";
    if (kind === "number" || kind === "integer") return within(found);
    if (kind === "boolean") return false;
    if (kind === "array" && depth < 8) {
      return Array.from({ length: Math.min(found.minItems ?? 1, 1024) }, () => this.sample(found.items, depth + 1));
    }
    if (kind === "object" && depth < 8) {
      const required = found.required ?? [];
      return Object.fromEntries(required.map((name) => [name, this.sample(found.properties?.[name], depth + 1)]));
    }
    return null;
  }

  // A type in words.
  words(schema, depth = 0) {
    const choices = this.choices(schema);
    if (depth > 6) return "…";
    if (choices.length > 1) return [...new Set(choices.map((one) => this.words(one, depth + 1)))].join(", or ");
    const [one] = choices;
    if (one.enum) return one.enum.map((value) => JSON.stringify(value)).join(" | ");
    const kinds = [one.type ?? []].flat();
    if (!kinds.length) return one.title ?? "anything";
    return kinds.map((kind) => this.word(kind, one, depth)).join(" or ");
  }

  word(kind, schema, depth) {
    if (kind === "array") {
      const { minItems: least, maxItems: most } = schema;
      const count = least !== undefined && least === most ? `${least} ` : "";
      const inner = this.words(schema.items, depth + 1).replace(/^(list|object|string|number|integer|boolean)\b/, "$1s");
      return `list of ${count}${inner}`;
    }
    if (kind === "object") {
      const names = Object.keys(schema.properties ?? {});
      const shown = names.slice(0, 8).join(", ") + (names.length > 8 ? ", …" : "");
      return names.length ? `object {${shown}}` : "object";
    }
    if (kind === "string" && schema.contentEncoding === "base64") return `${schema.contentMediaType ?? "bytes"} in base64`;
    if (kind === "string" && schema.contentMediaType) return `file (${schema.contentMediaType})`;
    return kind === "string" && schema.format === "binary" ? "bytes" : kind;
  }
}

// A number that its schema allows: nought where it can be.
function within({ minimum: least = -Infinity, exclusiveMinimum: above = -Infinity, maximum: most = Infinity, exclusiveMaximum: below = Infinity }) {
  const low = Math.max(least, above);
  const high = Math.min(most, below);
  const fits = (value) => value >= least && value > above && value <= most && value < below;
  return [0, low, low + 1, high, high - 1, (low + high) / 2].find(fits) ?? 0;
}

// The form

class Form {
  constructor(description) {
    this.description = description;
    this.fields = description.fields();
    this.controls = new Map();
    this.start = description.example ?? description.sample(description.request);
    byId("body").value = pretty(this.start);
    if (this.fields) this.draw(this.values(this.start));
    byId("views").hidden = !this.fields;
    this.show(this.fields ? "form" : "json");
  }

  draw(values) {
    const box = byId("fields");
    box.replaceChildren();
    box.classList.toggle("many", this.fields.length > 6);
    this.fields.forEach((field, index) => {
      const id = `field-${index}`;
      const control = this.control(field, id, values[field.name] ?? field.schema.default);
      this.controls.set(field.name, control);
      const words = this.description.words(field.schema).replace(/,? or null$/, "").replace(/ in base64$/, "");
      const hint = make("span", { class: "quiet" }, field.required ? words : `${words}, optional`);
      box.append(make("div", {}, make("label", { for: id }, field.name, hint), control));
    });
  }

  // What a request says, by field: its first row.
  values(request) {
    if (!this.description.isRows()) return request ?? {};
    const { inputs } = request ?? {};
    const first = Array.isArray(inputs) ? inputs[0] : inputs;
    if (Array.isArray(first)) return Object.fromEntries(this.fields.map(({ name }, i) => [name, first[i]]));
    if (Array.isArray(inputs)) return first ?? {};
    const byInput = Object.entries(first ?? {});
    if (byInput.length === 1 && Array.isArray(byInput[0][1]?.[0])) {
      return Object.fromEntries(this.fields.map(({ name }, i) => [name, byInput[0][1][0][i]]));
    }
    return Object.fromEntries(byInput.map(([name, column]) => [name, [column].flat(2)[0]]));
  }

  control({ schema, required }, id, value) {
    const kinds = this.description.kinds(schema);
    const options = this.description.choices(schema).find((one) => one.enum)?.enum ?? (kinds.has("boolean") ? [true, false] : null);
    if (options) {
      const written = options.map((one) => make("option", { value: JSON.stringify(one), selected: one === value }, String(one)));
      const none = !required && !options.includes(value) ? [make("option", { value: "", selected: true })] : [];
      return make("select", { id, "data-kind": "json" }, ...none, ...written);
    }
    const given = value === undefined || value === null ? "" : value;
    const file = this.description.choices(schema).find((one) => one.contentEncoding === "base64");
    if (file) return fileControl(id, file, typeof given === "string" ? given : "");
    if (kinds.has("number") || kinds.has("integer")) {
      const step = kinds.has("number") ? "any" : "1";
      return make("input", { id, type: "number", step, value: given, "data-kind": "number", autocomplete: "off" });
    }
    if (kinds.has("string")) {
      const area = make("textarea", { id, rows: this.fields.length > 6 ? 1 : 3, "data-kind": "text" });
      area.value = typeof given === "string" ? given : pretty(given);
      return area;
    }
    const text = typeof given === "string" ? given : pretty(given);
    const least = this.fields.length > 6 ? 1 : 3;
    const rows = Math.min(Math.max(text.split("\n").length, least), MOST_LINES);
    const area = make("textarea", { id, rows, "data-kind": "any", class: "code", spellcheck: "false" });
    area.value = text;
    return area;
  }

  // The request's body as text; throws when it is not JSON.
  body() {
    if (this.view === "json") return JSON.stringify(JSON.parse(byId("body").value));
    const found = {};
    for (const field of this.fields) {
      let value = read(this.controls.get(field.name));
      // No text is none, where an argument may be left out and is nothing then.
      if (value === "" && !field.required && (field.schema.default ?? null) === null) value = undefined;
      if (value !== undefined) found[field.name] = value;
      else if (this.description.isRows()) found[field.name] = null;
    }
    return JSON.stringify(this.description.isRows() ? { inputs: [found] } : found);
  }

  // The same as a form with files, for the command line; null where no file was chosen.
  parts() {
    if (this.view === "json" || ![...this.controls.values()].some((box) => box.querySelector("[data-kind=file]")?.files.length)) return null;
    return [...this.controls].flatMap(([name, box]) => {
      const file = box.querySelector("[data-kind=file]")?.files[0];
      if (file) return [`-F ${quoted(`${name}=@${file.name}`)}`];
      const value = read(box);
      return value === undefined || value === "" ? [] : [`-F ${quoted(`${name}=${typeof value === "string" ? value : JSON.stringify(value)}`)}`];
    });
  }

  show(view) {
    if (view === "json" && this.view === "form") byId("body").value = pretty(JSON.parse(this.body()));
    if (view === "form" && this.view === "json") this.draw(this.values(parsed(byId("body").value)));
    this.view = view;
    byId("fields").hidden = view !== "form";
    byId("raw").hidden = view !== "json";
  }

  mark(path) {
    for (const [name, control] of this.controls) {
      const wrong = path === name || path?.startsWith(`${name}.`) || path?.startsWith(`${name}[`) || path?.endsWith(`.${name}`);
      const marked = control.matches("[data-kind]") ? control : control.querySelector("[data-kind]");
      marked.toggleAttribute("aria-invalid", false);
      if (wrong) marked.setAttribute("aria-invalid", "true");
    }
  }
}

// A file of any kind, or its base64 as it stands in the example. An image is shown.
function fileControl(id, { contentMediaType: kind = "" }, given) {
  const input = make("input", { id, type: "file", accept: kind || false, "data-kind": "file" });
  input.content = given;
  const shown = make("div", { class: "preview" });
  const show = (type) => shown.replaceChildren(...(input.content && type.startsWith("image/") ? [picture(input.content, type)] : []));
  input.addEventListener("change", () => {
    const [file] = input.files;
    if (!file) return;
    const reader = new FileReader();
    reader.addEventListener("load", () => {
      input.content = reader.result.slice(reader.result.indexOf(",") + 1);
      show(file.type);
      input.dispatchEvent(new Event("input", { bubbles: true }));
    });
    reader.readAsDataURL(file);
  });
  show(kind.replace("*", "png"));
  return make("div", { class: "file" }, input, shown);
}

// What is no image leaves nothing.
function picture(content, kind, alt = "The image that is sent") {
  const image = make("img", { alt });
  image.addEventListener("error", () => image.remove());
  image.src = `data:${kind};base64,${content}`;
  return image;
}

function read(box) {
  const control = box.matches("[data-kind]") ? box : box.querySelector("[data-kind]");
  if (control.dataset.kind === "file") return control.content || undefined;
  const text = control.value;
  switch (control.dataset.kind) {
    case "text":
      return text;
    case "number":
      return text.trim() === "" ? undefined : Number(text);
    default:
      if (text.trim() === "") return undefined;
      try {
        return JSON.parse(text);
      } catch {
        return text;
      }
  }
}

const pretty = (value) => compact(JSON.stringify(value ?? null, null, 2));

// Lists of plain values on one line each: a row of sixty numbers is not sixty lines.
function compact(text) {
  return text.replace(/\[\s+((?:(?:-?[\d.eE+-]+|true|false|null),?\s*)+)\]/g, (_, inner) => `[${inner.trim().replace(/\s+/g, " ")}]`);
}

// The answer

function drawAnswer(value, description) {
  const outputs = value?.outputs;
  const parts = [];
  const kind = description.answerKind();
  if (kind.startsWith("image/") && typeof outputs === "string") {
    const shown = make("a", { href: `data:${kind};base64,${outputs}`, download: "answer.png" }, picture(outputs, kind, "The answer"));
    const note = `{"outputs": base64 of ${Math.round((outputs.length * 3) / 4).toLocaleString("en")} bytes, ${kind}}`;
    byId("answer").replaceChildren(make("div", { class: "preview" }, shown), make("pre", { class: "code", tabindex: "0" }, note));
    return;
  }
  const rows = Array.isArray(outputs) && outputs.length === 1 && Array.isArray(outputs[0]) ? outputs[0] : outputs;
  if (isFlatRecords(rows)) parts.push(table(rows.slice(0, MOST_ROWS)));
  else if (["string", "number", "boolean"].includes(typeof single(outputs))) {
    parts.push(make("p", { class: "verdict" }, String(single(outputs))));
  }
  parts.push(make("pre", { class: "code", tabindex: "0", "aria-label": "The answer as JSON" }, pretty(value)));
  byId("answer").replaceChildren(...parts);
}

const single = (outputs) => (Array.isArray(outputs) && outputs.length === 1 ? outputs[0] : outputs);

function isFlatRecords(value) {
  if (!Array.isArray(value) || !value.length) return false;
  const keys = Object.keys(value[0] ?? {});
  if (!keys.length || keys.length > 8) return false;
  return value.every((row) => row && typeof row === "object" && !Array.isArray(row) && keys.every((key) => key in row) && Object.values(row).every((cell) => cell === null || typeof cell !== "object"));
}

function table(rows) {
  const keys = Object.keys(rows[0]);
  const shares = new Set(keys.filter((key) => rows.every((row) => typeof row[key] === "number" && row[key] >= -1 && row[key] <= 1)));
  const head = make("tr", {}, ...keys.map((key) => make("th", { scope: "col" }, key)));
  const body = rows.map((row) => make("tr", {}, ...keys.map((key) => cell(row[key], shares.has(key)))));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
}

function cell(value, isShare) {
  if (typeof value !== "number") return make("td", {}, String(value));
  const text = Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
  const meter = isShare ? make("meter", { min: 0, max: 1, value: Math.max(0, value), "aria-hidden": "true" }) : null;
  return make("td", { class: "number" }, meter, text);
}

function drawFailure(status, value) {
  const error = value?.error ?? {};
  const message = typeof error.message === "string" ? error.message : `the server answered ${status}`;
  byId("trouble").textContent = error.path ? `${error.path}: ${message}` : message;
  byId("answer").replaceChildren(make("pre", { class: "code", tabindex: "0" }, pretty(value)));
}

// What a shell takes as one word.
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const LONGEST_CURL = 4000;

function curl(form) {
  const address = new URL("predict", document.baseURI).href;
  const command = `curl ${form.description.streams() ? "-N " : ""}${quoted(address)}`;
  const parts = form.parts();
  if (parts) return [command, ...parts].join(" \\\n  ");
  const body = form.body();
  const data = body.length > LONGEST_CURL ? "@body.json" : quoted(body);
  return `${command} \\\n  -H 'Content-Type: application/json' \\\n  -d ${data}`;
}

// Pieces as they come (server-sent events): texts one after the other, anything else a line each.
async function drawPieces(answer) {
  const drawn = make("pre", { class: "code pieces", tabindex: "0", "aria-label": "The pieces of the answer" });
  byId("answer").replaceChildren(drawn);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the answer ends before its end");
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = parsed(/^data: (.*)$/m.exec(event)?.[1] ?? "");
      if (event.startsWith("event: error")) return data;
      if (event.startsWith("event: end")) return null;
      if (!event.startsWith(":")) drawn.append(typeof data === "string" ? data : `${JSON.stringify(data)}\n`);
    }
  }
}

async function ask(form) {
  const send = byId("send");
  byId("trouble").textContent = "";
  form.mark(null);
  let body;
  try {
    body = form.body();
  } catch (error) {
    byId("trouble").textContent = `Not JSON: ${error.message}`;
    byId("body").focus();
    return;
  }
  byId("curl").textContent = curl(form);
  send.disabled = true;
  const began = performance.now();
  try {
    const accept = form.description.streams() ? "text/event-stream" : "application/json";
    const answer = await fetch("predict", { method: "POST", body, headers: { "Content-Type": "application/json", Accept: accept } });
    const inPieces = answer.headers.get("Content-Type") === "text/event-stream";
    const value = inPieces ? await drawPieces(answer) : parsed(await answer.text());
    byId("timing").textContent = `${answer.status} · ${Math.max(1, Math.round(performance.now() - began))} ms`;
    if (inPieces) byId("trouble").textContent = value?.error?.message ?? "";
    else if (answer.ok) drawAnswer(value, form.description);
    else {
      drawFailure(answer.status, value);
      form.mark(value?.error?.path);
    }
  } catch (error) {
    byId("trouble").textContent = `No answer: ${error.message}`;
  } finally {
    send.disabled = false;
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function playground(description) {
  const form = new Form(description);
  const refresh = () => {
    try {
      byId("curl").textContent = curl(form);
    } catch {
      // Half-written JSON: the last whole command stays.
    }
  };
  for (const radio of document.querySelectorAll("input[name=view]")) {
    radio.addEventListener("change", () => form.show(radio.value));
  }
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    void ask(form);
  });
  byId("ask").addEventListener("input", refresh);
  byId("ask").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("ask").requestSubmit();
  });
  byId("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(byId("curl").textContent);
      byId("copy").textContent = "Copied";
      setTimeout(() => { byId("copy").textContent = "Copy"; }, 1500);
    } catch {
      getSelection().selectAllChildren(byId("curl"));
    }
  });
  byId("send").disabled = false;
  refresh();
}

// The reference

function reference(description) {
  const routes = byId("routes");
  const groups = new Map([["This model", []], ["Other protocols", []], ["Running it", []]]);
  for (const [path, item] of Object.entries(description.value.paths)) {
    const group = path === "/predict" || path.startsWith("/jobs/") ? "This model" : /^\/(livez|readyz|metrics)$/.test(path) ? "Running it" : "Other protocols";
    for (const [method, operation] of Object.entries(item)) {
      if (method !== "parameters") groups.get(group).push(route(description, path, method, operation));
    }
  }
  for (const [title, drawn] of groups) routes.append(make("h2", {}, title), ...drawn);
}

function route(description, path, method, operation) {
  const detail = make("div", { class: "detail" });
  const content = Object.entries(operation.requestBody?.content ?? {});
  if (content.length) {
    detail.append(make("h3", {}, "Request"), typesTable(description, content));
    const properties = propertiesTable(description, content[0][1].schema);
    if (properties) detail.append(properties);
    const example = content[0][1].example;
    if (example !== undefined) detail.append(make("h3", {}, "Example"), make("pre", { class: "code", tabindex: "0" }, pretty(example)));
  }
  const answers = Object.entries(operation.responses).map(([code, answer]) => {
    const types = Object.entries(answer.content ?? {}).filter(() => code === "200");
    const words = types.map(([kind, media]) => `${kind}: ${description.words(media.schema)}`).join("; ");
    return [code, words ? `${answer.description}. ${words}` : answer.description];
  });
  detail.append(make("h3", {}, "Answers"), twoColumns("Status", "Meaning", answers));
  const head = make("summary", {}, make("span", { class: "method" }, method.toUpperCase()), make("code", {}, path), make("span", { class: "quiet" }, ...withCode(operation.summary ?? "")));
  return make("details", { open: path === "/predict" }, head, detail);
}

function typesTable(description, content) {
  return twoColumns("Type", "Body", content.map(([kind, media]) => [kind, description.words(media.schema)]));
}

function propertiesTable(description, schema) {
  const found = description.solid(schema);
  const rows = Object.entries(found.properties ?? {}).map(([name, one]) => {
    const required = (found.required ?? []).includes(name) ? "" : ", optional";
    const about = description.solid(one).description;
    return [name, `${description.words(one)}${required}${about ? `. ${about}` : ""}`];
  });
  return rows.length ? twoColumns("Key", "Value", rows) : null;
}

// Descriptions are CommonMark (OpenAPI 3.1, 4.6); of that, ours have code between backticks, and it is all that is drawn.
function withCode(text) {
  return text.split(/`([^`]+)`/).map((part, at) => (at % 2 ? make("code", {}, part) : part));
}

function twoColumns(first, second, rows) {
  const head = make("tr", {}, make("th", { scope: "col" }, first), make("th", { scope: "col" }, second));
  const body = rows.map(([one, other]) => make("tr", {}, make("td", {}, make("code", {}, one)), make("td", {}, ...withCode(other))));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
}

// Both

async function start() {
  const answer = await fetch("openapi.json");
  if (answer.status === 503) {
    byId("trouble").textContent = "The model is loading …";
    setTimeout(() => void begin(), RETRY_MS);
    return;
  }
  if (!answer.ok) throw new Error(`openapi.json: ${answer.status}`);
  const description = new Document(await answer.json());
  byId("trouble").textContent = "";
  const { title, version } = description.value.info;
  document.title = document.body.dataset.page === "reference" ? `${title} · API reference` : title;
  byId("name").textContent = title;
  byId("about").textContent = version === "0" ? "served by Corten" : `revision ${version} · served by Corten`;
  if (document.body.dataset.page === "reference") reference(description);
  else playground(description);
}

async function begin() {
  try {
    await start();
  } catch (error) {
    byId("trouble").textContent = `The description of the model cannot be read: ${error.message}`;
  }
}

void begin();
