// Runs inside Chromium, in a world of its own that the page's scripts cannot reach: walks what is displayed and says,
// element by element, what a `Writer` needs. What hides a text is judged by computed styles and by where it lies.
// Gives JSON of {markup, title, url, ...}. The markup is flat (see flat.py); a text that is not seen stands in <~N>, where
// N is the place of the reason among the limits' words. Elements that mean nothing to a `Writer` are left out. Large pages
// have a hundred thousand elements: here nothing is made anew for each that could be made once.
(limits) => {
  const NEVER = new Set(["script", "style", "template", "head", "meta", "link", "base", "datalist", "param"]);
  const KEPT = new Set(["href", "role", "alt", "src", "type", "name", "placeholder", "aria-label", "id", "colspan", "rowspan", "start"]);
  const SPECIAL = new Set(limits.special), WHOLE = new Set(limits.whole), SOME = /\S/;
  // Elements that browsers give neither a ground nor a border that cuts.
  const PLAIN = new Set(("html body div p span a b i em strong u small ul ol li dl dt dd table thead tbody tfoot tr td th h1 h2 h3 h4"
    + " h5 h6 section article main nav header footer aside pre code blockquote br hr img label form figure font center").split(" "));
  const WORDS = Object.values(limits.words), NONE = {};
  const nodes = [], out = [], labels = {};
  let left = limits.nodes, comments = 0, letters = 0, templates = 0;
  const view = document.documentElement, rtl = view && getComputedStyle(view).direction === "rtl";
  const wide = view ? view.clientWidth : 0, x = scrollX, y = scrollY;

  // Reading a computed value is what costs here. One whose property's name stands neither in the element's own style nor
  // in a rule that selects it has its first value, or its parent's.
  const rules = [];  // [selector, text in lower case]
  const known = (() => {
    const read = (list) => {
      for (const rule of list) {
        if (rule.cssText.includes("@import") || rule.selectorText && rule.cssRules && rule.cssRules.length) return false;
        if (rule.selectorText) rules.push([rule.selectorText, rule.cssText.slice(rule.selectorText.length).toLowerCase()]);
        else if (rule.cssRules && !read(rule.cssRules)) return false;
      }
      return true;
    };
    try {
      if (document.getAnimations().length || document.querySelector("iframe, frame, svg, math")) return false;
      return [...document.styleSheets, ...document.adoptedStyleSheets].every((sheet) => read(sheet.cssRules));
    } catch (e) {
      return false;  // a sheet of another origin cannot be read
    }
  })();
  let shadows = false, style = "";  // of the element that is looked at: its own style
  const selected = {};  // name -> the elements that rules with it select; null: nobody knows
  const select = (name) => {
    const selectors = rules.filter(([, text]) => text.includes(name)).map(([selector]) => selector);
    try {
      return new Set(selectors.length ? document.querySelectorAll(selectors.join(", ")) : []);
    } catch (e) {
      return null;
    }
  };
  const may = (name, element) => {
    if (shadows || !known || style.includes("\\")) return true;
    if (selected[name] === undefined) selected[name] = select(name);
    return selected[name] === null || selected[name].has(element) || style.includes(name);
  };
  const styles = known ? [...document.querySelectorAll("[style]")].map((e) => e.getAttribute("style")).join(" ").toLowerCase() : "";
  const named = {};  // name -> whether it stands anywhere: for what elements inherit
  const anywhere = (name) => shadows || !known || (named[name] ??= styles.includes("\\") || styles.includes(name) || rules.some((rule) => rule.join(" ").toLowerCase().includes(name)));
  const JUDGED = ["content-visibility", "opacity", "filter", "background", "mask", "position", "overflow", "clip", "transform", "scale", "all:"];
  const judged = known && JUDGED.map(select).every((found, i) => (selected[JUDGED[i]] = found) !== null)
    ? new Set(JUDGED.flatMap((name) => [...selected[name]])) : null;

  const colours = new Map();
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const colour = (text) => {  // [r, g, b, a] of any colour that CSS knows, r g b from 0 to 1
    let found = colours.get(text);
    if (found) return found;
    const match = /^rgba?\((\d+), (\d+), (\d+)(?:, ([\d.]+))?\)$/.exec(text);
    if (match) found = [match[1] / 255, match[2] / 255, match[3] / 255, match[4] === undefined ? 1 : +match[4]];
    else {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = text;
      canvas.fillRect(0, 0, 1, 1);
      const d = canvas.getImageData(0, 0, 1, 1).data;
      found = [d[0] / 255, d[1] / 255, d[2] / 255, d[3] / 255];
    }
    colours.set(text, found);
    return found;
  };
  const white = colour("rgb(255, 255, 255)");
  const over = (top, ground, opacity) => [0, 1, 2].map((i) => top[i] * top[3] * opacity + ground[i] * (1 - top[3] * opacity));
  const light = (c) => {
    const [r, g, b] = c.map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const x = light(a), y = light(b);
    return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
  };
  const tooFaint = (text, ground, opacity) => contrast(over(text, ground, opacity), ground.slice(0, 3)) < limits.contrast;

  const clipped = (s, box) => {
    if (s.clip !== "auto" && (s.position === "absolute" || s.position === "fixed")) {
      const n = (s.clip.match(/-?[\d.]+/g) || []).map(Number);
      if (n.length === 4 && (n[2] - n[0] <= limits.box || n[1] - n[3] <= limits.box)) return true;
    }
    const path = s.clipPath;
    if (path !== "none") {
      let m;
      if ((m = /^inset\(([^)]*)\)/.exec(path))) {
        const n = [...m[1].matchAll(/([\d.]+)(%|px)/g)].map((x, i) => x[2] === "%" ? +x[1] : (100 * x[1]) / ((i % 2 ? box.width : box.height) || 1));
        const [t, r = t, b = t, l = r] = n;
        if (t + b >= 99 || l + r >= 99) return true;
      } else if ((m = /^(?:circle|ellipse)\(\s*([\d.]+)/.exec(path))) {
        if (+m[1] < 1) return true;
      } else if ((m = /^polygon\((.*)\)/.exec(path))) {
        const points = m[1].split(",").map((p) => (p.match(/-?[\d.]+/g) || []).join(" "));
        if (new Set(points).size < 3) return true;
      }
    }
    return false;
  };

  // The state that an element hands down: why it is hidden, opacity, ground (null: a picture), the box that cuts it.
  const judge = (element, state, s) => {
    if (judged && !shadows && style === "" && PLAIN.has(element.localName) && !judged.has(element)
      && !(element.hasAttributes() && (element.hasAttribute("bgcolor") || element.hasAttribute("background")))) return state;
    let {why, opacity, ground, cut} = state;
    if (may("content-visibility", element) && s.contentVisibility === "hidden") why = why || limits.words.notShown;
    if (may("opacity", element) && s.opacity !== "1") opacity *= +s.opacity;
    const filter = may("filter", element) && /opacity\(([\d.]+)\)/.exec(s.filter);
    if (filter) opacity *= +filter[1];
    if ((may("background", element) || element.hasAttribute("background")) && s.backgroundImage !== "none") ground = null;
    else if (may("background", element) || element.hasAttribute("bgcolor") || !PLAIN.has(element.localName)) if (s.backgroundColor !== "rgba(0, 0, 0, 0)") {
      const c = colour(s.backgroundColor);
      if (c[3] >= 0.999) ground = c;
      else if (ground) ground = [...over(c, ground, 1), 1];
    }
    if (!why && may("mask", element) && s.maskImage && s.maskImage !== "none" && /gradient/.test(s.maskImage) && !/rgba?\((?!0, 0, 0, 0\))/.test(s.maskImage)) why = limits.words.transparent;
    // Out of the flow, an element is not cut by boxes between it and what it is placed against.
    const position = may("position", element) ? s.position : "static", out = position === "fixed" || position === "absolute";
    if (position === "fixed" || (out && state.held)) cut = null;
    const cuts = (may("overflow", element) || !PLAIN.has(element.localName)) && s.overflow !== "visible";
    const placed = may("clip", element) && ((out && s.clip !== "auto") || s.clipPath !== "none");
    const moved = (may("transform", element) && s.transform !== "none") || (may("scale", element) && s.scale !== "none");
    if (cuts || placed || moved) {
      const box = element.getBoundingClientRect();
      if (!why && clipped(s, box)) why = limits.words.cut;
      const flat = box.width <= limits.box || box.height <= limits.box;
      if (!why && flat && moved && element.textContent) why = limits.words.cut;
      if (cuts && element !== document.body && element !== view) {
        const inner = {left: box.left, top: box.top, right: box.right, bottom: box.bottom};
        const scrolls = (v) => v === "auto" || v === "scroll";
        // what can be scrolled to can be seen; a box of no size shows nothing whatever it does
        if (scrolls(s.overflowX) && box.width > 8) { inner.left = -Infinity; inner.right = Infinity; }
        if (scrolls(s.overflowY) && box.height > 8) { inner.top = -Infinity; inner.bottom = Infinity; }
        if (s.overflowX === "visible") { inner.left = -Infinity; inner.right = Infinity; }
        if (s.overflowY === "visible") { inner.top = -Infinity; inner.bottom = Infinity; }
        cut = cut ? {left: Math.max(cut.left, inner.left), top: Math.max(cut.top, inner.top), right: Math.min(cut.right, inner.right), bottom: Math.min(cut.bottom, inner.bottom)} : inner;
      }
    }
    const held = position === "static" && state.held;
    if (why === state.why && opacity === state.opacity && ground === state.ground && cut === state.cut && held === state.held) return state;
    return {...state, why, opacity, ground, cut, held, looks: null};
  };

  const covers = [];  // opaque boxes that are taken out of the flow: what lies below them is not seen
  const range = document.createRange(), seen = [], places = [];  // texts that are seen, and where they are in `out`
  const look = (s, state) => {  // what its colour and size say of a text: the same for all that are alike
    if (anywhere("visibility") && s.visibility !== "visible") return limits.words.invisible;
    const shade = anywhere("text-fill") ? s.webkitTextFillColor : s.color, key = shade + s.fontSize;
    state.looks ||= new Map();
    let known = state.looks.get(key);
    if (known === undefined) {
      const c = colour(shade);
      known = parseFloat(s.fontSize) < limits.size ? limits.words.tiny
        : c[3] * state.opacity < limits.opacity ? limits.words.transparent
        : state.ground && tooFaint(c, state.ground, state.opacity) ? limits.words.faint : "";
      state.looks.set(key, known);
    }
    return known === limits.words.faint && s.textShadow !== "none" ? "" : known;
  };
  const reason = (node, top) => {
    const state = top.state;
    if (state.why) return state.why;
    if (top.look === undefined) top.look = top.style ? look(top.style, state) : "";
    if (top.look) return top.look;
    if (anywhere("first-line") && state.ground) {
      const first = getComputedStyle(node.parentElement, "::first-line");
      if (tooFaint(colour(first.color), state.ground, state.opacity) || parseFloat(first.fontSize) < limits.size) return limits.words.faint;
    }
    range.selectNodeContents(node);
    const box = range.getBoundingClientRect(), width = box.width, height = box.height;
    if (width === 0 && height === 0) return limits.words.notShown;
    if (height < limits.size || width < 0.5) return limits.words.tiny;
    const left = box.left, right = left + width;
    if (box.bottom + y <= 0 || (rtl ? left >= wide : right + x <= 0)) return limits.words.away;
    if (rtl ? right + x < -10 * limits.far : left + x > wide + 10 * limits.far) return limits.words.away;
    const c = state.cut;
    if (c && (Math.min(right, c.right) - Math.max(left, c.left) <= limits.box || Math.min(box.bottom, c.bottom) - Math.max(box.top, c.top) <= limits.box)) return limits.words.cut;
    return "";
  };

  const ODD = /[&"<>]/;
  const quote = (text) => ODD.test(text) ? text.replaceAll("&", "&amp;").replaceAll('"', "&quot;").replaceAll("<", "&lt;").replaceAll(">", "&gt;") : text;
  const hide = (text, why) => `<~${WORDS.indexOf(why)}>${quote(text)}</~${WORDS.indexOf(why)}>`;
  const attributes = (element) => {
    if (!element.hasAttributes()) return NONE;
    let found = NONE;
    for (const name of element.getAttributeNames()) if (KEPT.has(name)) {
      if (found === NONE) found = {};
      found[name] = element.getAttribute(name).slice(0, 4096);
    }
    return found;
  };
  const words = (element) => (element.textContent || "").replace(/\s+/g, " ").trim().slice(0, 200);

  const stack = [];  // of {child: the next one, state, style, end: what is written behind it}
  const list = (children) => Array.prototype.map.call(children, (child) => child);
  const enter = (element, state) => {
    const tag = element.localName || "";
    if (tag === "template") templates++;
    if (NEVER.has(tag) || left-- <= 0) return;
    if (tag === "noscript") {  // its contents are markup that was not read
      const text = new DOMParser().parseFromString(element.textContent, "text/html").body.textContent;
      if (/\S/.test(text)) out.push(hide(text, limits.words.noScripts));
      return;
    }
    style = element.hasAttributes() ? (element.getAttribute("style") || "").toLowerCase() : "";
    const s = getComputedStyle(element), display = s.display;
    let inner = state;
    if (display === "none" || (display === "" && !state.why)) inner = {...state, why: state.why || limits.words.notShown, unlaid: state.unlaid || display === "none"};
    else if (!(state.why && state.unlaid)) inner = judge(element, state, s);
    if (!inner.why && !inner.unlaid && may("position", element) && s.position === "absolute") {
      const c = s.backgroundImage !== "none" ? 1 : colour(s.backgroundColor)[3] * inner.opacity;
      if (c > 0.95 && covers.length < 200) covers.push([element, element.getBoundingClientRect(), s]);
    }
    let a = attributes(element);
    const control = tag === "input" || tag === "select" || tag === "textarea" || tag === "button";
    const handled = tag !== "body" && (a.role === "button" || !!element.onclick), link = tag === "a" && !!a.href;
    if (a === NONE && (control || handled || tag === "img")) a = {};
    if (control || handled || link) a["~n"] = String(nodes.push(element) - 1);
    const button = tag === "a" ? !link : handled && !control;
    if (control || tag === "img") {
      let why = inner.why || (s.visibility !== "visible" ? limits.words.invisible : inner.opacity < limits.opacity ? limits.words.transparent : "");
      if (!why && tag !== "img") {
        const box = element.getBoundingClientRect();
        if (!box.width && !box.height) why = limits.words.notShown;
      }
      a["~h"] = why;
    }
    if (tag === "input") { a.value = element.value; if (element.checked) a.checked = ""; }
    if (tag === "textarea") a.value = element.value;
    if (tag === "select") {
      a.value = element.selectedOptions.length ? words(element.selectedOptions[0]) : "";
      a["~o"] = [...element.options].slice(0, limits.choices).map(words).join(" / ") + (element.options.length > limits.choices ? " / …" : "");
    }
    if (tag === "label" && element.htmlFor) labels[element.htmlFor] = words(element);
    const name = tag === "title" ? "g" : button ? "button" : tag;
    let end = "";
    if (SPECIAL.has(name) || "role" in a) {
      const told = SPECIAL.has(name) ? name : "g";
      let head = "<" + told;
      for (const key in a) head += ` ${key}="${quote(a[key])}"`;
      end = `</${told}>`;
      if (WHOLE.has(told)) { out.push(head + ">" + end); end = ""; }
      else out.push(head + ">");
    }
    if (tag === "input" || tag === "select" || tag === "textarea") { if (end) out.push(end); return; }
    shadows ||= !!element.shadowRoot;
    const first = (element.shadowRoot || element).firstChild;
    if (first === null && tag !== "slot" && tag !== "iframe" && tag !== "frame") { if (end) out.push(end); return; }
    const frame = {child: first, among: null, at: 0, state: inner, style: s, look: undefined, end};
    if (tag === "slot" && element.assignedNodes().length) frame.among = element.assignedNodes();
    if (tag === "iframe" || tag === "frame") {
      let inside = null;
      try { inside = element.contentDocument; } catch (e) { inside = null; }
      frame.among = inside && inside.documentElement && inside.body && inside.body.childNodes.length ? [inside.documentElement] : [];
    }
    stack.push(frame);
    if (tag === "details" && !element.open) {
      const summary = [...element.children].find((c) => c.localName === "summary");
      frame.among = [...(element.shadowRoot || element).childNodes].filter((c) => c !== summary);
      frame.state = {...inner, why: inner.why || limits.words.folded, unlaid: true};
      if (summary) stack.push({...frame, among: [summary], state: inner, end: ""});
    }
  };

  let size = 0, cutShort = false;
  if (view) enter(view, {why: "", opacity: 1, ground: white, cut: null, held: true, unlaid: false, looks: null});
  while (stack.length) {
    const top = stack[stack.length - 1];
    let child = null;
    if (cutShort) child = null;
    else if (top.among) child = top.among[top.at++] || null;
    else if ((child = top.child)) top.child = child.nextSibling;
    if (!child) {
      stack.pop();
      if (top.end) out.push(top.end);
      continue;
    }
    const kind = child.nodeType;
    if (kind === 1) enter(child, top.state);
    else if (kind === 3) {
      const text = child.data;
      if (!SOME.test(text)) { out.push(" "); continue; }
      size += text.length;
      if (size > limits.text || left <= 0) { cutShort = true; continue; }
      const why = top.state.unlaid ? top.state.why : reason(child, top);
      if (why) out.push(hide(text, why));
      else { seen.push(child); places.push(out.push(quote(text)) - 1); }
    } else if (kind === 8) { comments++; letters += child.data.trim().length; }
  }

  for (let i = 0; covers.length && i < seen.length; i++) {
    const node = seen[i];
    range.selectNodeContents(node);
    const box = range.getBoundingClientRect();
    for (const [cover, rect, s] of covers) {
      if (rect.left > box.left + 1 || rect.right < box.right - 1 || rect.top > box.top + 1 || rect.bottom < box.bottom - 1) continue;
      if (cover.contains(node)) continue;
      const above = s.zIndex !== "auto" ? +s.zIndex >= 0 : true;
      const later = cover.compareDocumentPosition(node) & Node.DOCUMENT_POSITION_PRECEDING;
      if (!above || !(later || +s.zIndex > 0)) continue;
      let own = node.parentElement, raised = false;
      for (; own && !own.contains(cover); own = own.parentElement) {
        const o = getComputedStyle(own);
        if (o.position !== "static" && o.zIndex !== "auto" && (+o.zIndex > +s.zIndex || s.zIndex === "auto" && +o.zIndex > 0)) raised = true;
      }
      if (!raised) { out[places[i]] = hide(node.data, limits.words.covered); break; }
    }
  }
  globalThis.llmosNodes = nodes;
  return JSON.stringify({markup: out.join(""), title: document.title, url: location.href, labels, comments, letters, templates, cutShort, scripts: document.scripts.length});
}
