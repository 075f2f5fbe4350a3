// Files that a person chose to pictures of this tab: bytes, what the server sees in them, and a strip to choose from.

import { examine } from "./api.js";
import { make } from "./elements.js";

export class Pictures {
  constructor(strip, onChoice) {
    this.strip = strip;
    this.onChoice = onChoice;
    this.all = [];
    this.shown = null;
    this.count = 0;
  }

  // Read files one after the other; returns what went wrong, a line each.
  async add(files) {
    const problems = [];
    for (const file of files) {
      try {
        const picture = await this.read(file);
        this.all.push(picture);
        this.choose(picture);
      } catch (error) {
        if (error.status === 401) throw error;
        problems.push(`${file.name}: ${error.message}`);
      }
    }
    return problems;
  }

  async read(file) {
    const encoded = await base64(file);
    const facts = await examine(encoded);
    const media = /^image\/[a-z0-9.+-]{1,40}$/.test(file.type) ? file.type : "image/png";
    return {
      id: ++this.count,
      name: file.name,
      encoded,
      dataUrl: `data:${media};base64,${encoded}`,
      url: URL.createObjectURL(file),
      ...facts,
    };
  }

  choose(picture) {
    this.shown = picture;
    this.show();
    this.onChoice(picture);
  }

  remove() {
    const place = this.all.indexOf(this.shown);
    if (place < 0) return;
    URL.revokeObjectURL(this.shown.url);
    this.all.splice(place, 1);
    this.choose(this.all[Math.min(place, this.all.length - 1)] ?? null);
  }

  show() {
    this.strip.replaceChildren(
      ...this.all.map((picture) =>
        make(
          "li",
          {},
          make(
            "button",
            {
              type: "button",
              "aria-label": `Show ${picture.name}`,
              "aria-current": picture === this.shown ? "true" : false,
              title: picture.name,
              onclick: () => this.choose(picture),
            },
            make("img", { src: picture.url, alt: "" }),
          ),
        ),
      ),
    );
    this.strip.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result).split(",", 2)[1] ?? "");
    reader.onerror = () => reject(new Error("the file cannot be read"));
    reader.readAsDataURL(file);
  });
}
