// postal-mime (npm): reads file names from stdin, prints a line of JSON for each (see second_opinion.py).
// The argument is the folder that has node_modules.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const found = createRequire(process.argv[2] + "/").resolve("postal-mime");
const library = await import(pathToFileURL(found));
const PostalMime = library.default.default ?? library.default;

const addresses = (list) =>
  (list ?? []).flatMap((one) => (one.group ? addresses(one.group) : [[one.name ?? "", one.address ?? ""]]));

function attachment(one) {
  let octets = Buffer.from(typeof one.content === "string" ? new TextEncoder().encode(one.content) : one.content);
  octets = Buffer.from(octets.toString("latin1").replaceAll("\r\n", "\n").replace(/\n+$/, ""), "latin1");
  return [one.filename ?? null, octets.length, createHash("sha256").update(octets).digest("hex")];
}

for (const path of readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  let value;
  try {
    const options = { rfc822Attachments: true, forceRfc822Attachments: true };
    const message = await new PostalMime(options).parse(readFileSync(path));
    const date = message.date ? new Date(message.date) : null;
    value = {
      subject: message.subject ?? null,
      from: addresses(message.from ? [message.from] : []),
      to: addresses(message.to),
      cc: addresses(message.cc),
      date: date && !isNaN(date) ? date.toISOString().replace(/\.\d+Z$/, "+00:00") : null,
      message_id: message.messageId ?? null,
      text: message.text ?? null,
      html: message.html ?? null,
      attachments: message.attachments.map(attachment),
    };
  } catch (error) {
    const fields = ["subject", "from", "to", "cc", "date", "message_id", "text", "html", "attachments"];
    value = Object.fromEntries(fields.map((field) => [field, "!" + error.name]));
  }
  console.log(JSON.stringify(value));
}
