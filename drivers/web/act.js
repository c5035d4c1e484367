// Functions that are called on one element (`this`), in the isolated world in which the page was read.
({
  // Whether a click at (x, y) of the window reaches the element.
  hit(x, y) {
    let found = document.elementFromPoint(x, y);
    for (let inner = found; inner && inner.shadowRoot; found = inner) {
      inner = inner.shadowRoot.elementFromPoint(x, y);
      if (!inner || inner === found) break;
    }
    if (!found) return false;
    const label = found.closest && found.closest("label");
    return found === this || this.contains(found) || found.contains(this) || !!label && label.control === this;
  },

  // Put text into a field, or say what has to be done instead: "type", "click", or why it cannot be.
  fill(text) {
    const changed = () => {
      for (const kind of ["input", "change"]) this.dispatchEvent(new Event(kind, {bubbles: true}));
    };
    const wanted = text.trim().toLowerCase();
    if (this.disabled || this.readOnly) return "locked";
    if (this.localName === "select") {
      const named = (option) => [option.text, option.value, option.label].some((t) => (t || "").trim().toLowerCase() === wanted);
      const found = [...this.options].find(named);
      if (!found) return "option";
      this.value = found.value;
      changed();
      return "done";
    }
    if (this.localName === "input") {
      if (["checkbox", "radio"].includes(this.type))
        return ["yes", "true", "on", "1", "checked"].includes(wanted) === this.checked ? "done" : "click";
      if (this.type === "file") return "file";
      if (["date", "time", "month", "week", "datetime-local", "color", "range"].includes(this.type)) {
        const before = this.value;
        this.value = text;
        if (this.value !== text) {
          this.value = before;
          return "value";
        }
        changed();
        return "done";
      }
    }
    this.focus();
    if (this.select) this.select();
    return "type";
  },

  // Send the form that the field belongs to; false where there is none.
  submit() {
    if (!this.form) return false;
    this.form.requestSubmit();
    return true;
  },
})
