/** Markdown and maths of people and models as HTML that cannot run, load or post anything. */

import DOMPurify from "dompurify";
import { Marked, type TokenizerAndRendererExtension } from "marked";
import temml from "temml";

// A formula has an end within reach, so that a text of opening signs alone is not searched to its end for each.
const BLOCK_MATHS = /^(?:\$\$([^$]{1,4000}?)\$\$|\\\[([\s\S]{1,4000}?)\\\])/;
const INLINE_MATHS = /^(?:\$\$([^$]{1,4000}?)\$\$|\\\[([\s\S]{1,4000}?)\\\]|\\\((.{1,4000}?)\\\)|\$(?!\s)((?:\\.|[^$\\\n]){1,4000}?)(?<!\s)\$(?!\d))/;

function maths(level: "block" | "inline"): TokenizerAndRendererExtension {
  const pattern = level === "block" ? BLOCK_MATHS : INLINE_MATHS;
  return {
    name: `${level}Maths`,
    level,
    start: (text) => (level === "block" ? /(?<=\n)(?:\$\$|\\\[)/ : /\$|\\[([]/).exec(text)?.index,
    tokenizer(text) {
      const found = pattern.exec(text);
      if (!found) return undefined;
      const tex = found.slice(1).find((part) => part !== undefined)!;
      return { type: `${level}Maths`, raw: found[0], text: tex, display: /^(?:\$\$|\\\[)/.test(found[0]) };
    },
    renderer: (token) =>
      temml.renderToString(token.text, { displayMode: token.display, throwOnError: false, maxExpand: 100 }),
  };
}

const marked = new Marked({
  gfm: true,
  extensions: [maths("block"), maths("inline")],
  renderer: {
    html: ({ text }) => escaped(text),
    image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
});

const PROSE = "a b blockquote br code del em h1 h2 h3 h4 h5 h6 hr i li ol p pre s strong sub sup table tbody td th thead tr ul";
const MATHS = "math menclose merror mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow ms mspace msqrt mstyle msub msubsup msup mtable mtd mtext mtr munder munderover none";
const ATTRIBUTES =
  "start align class display mathvariant stretchy fence separator lspace rspace width height depth linethickness accent accentunder columnalign rowspacing columnspacing scriptlevel displaystyle largeop movablelimits minsize maxsize symmetric notation";

const purify = DOMPurify(window);
purify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A") return;
  node.setAttribute("rel", "noopener noreferrer nofollow");
  node.setAttribute("target", "_blank");
});

/** Safe HTML of Markdown; its own HTML is shown as text, images become links. */
export function safeHtml(text: string): string {
  return purify.sanitize(withoutStyles(parsed(text)), {
    ALLOWED_TAGS: [...PROSE.split(" "), ...MATHS.split(" ")],
    ALLOWED_ATTR: ["href", "rel", "target", ...ATTRIBUTES.split(" ")],
    ADD_URI_SAFE_ATTR: ATTRIBUTES.split(" "),
    ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
  });
}

/** What nests too deeply for the browser's stack is shown as it was written. */
function parsed(text: string): string {
  try {
    return marked.parse(text, { async: false });
  } catch {
    return `<p>${escaped(text)}</p>`;
  }
}

/** Temml's style attributes: the page's policy would refuse each with a complaint. All other HTML was escaped. */
function withoutStyles(html: string): string {
  return html.replace(/(<m[a-z]+[^<>]*?) style="[^"<>]*"/g, "$1");
}

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
}
