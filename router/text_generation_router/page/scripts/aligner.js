// Finds out which token each piece of text came from. Servers hold texts back that may become a stop sequence, and the
// bytes of a character that is not whole, so that tokens and texts need not come together.

export class Aligner {
  #tokens = [];
  #text = "";

  /** The pieces that are known now: [text, token], where token is null if none can be told. */
  add(text, tokens) {
    this.#tokens.push(...tokens);
    this.#text += text;
    const pieces = [];
    while (this.#text && this.#tokens.length) {
      const [first] = this.#tokens;
      if (this.#text.startsWith(first.text)) {
        this.#tokens.shift();
        if (first.text) pieces.push([first.text, first]);
        this.#text = this.#text.slice(first.text.length);
      } else if (first.text.startsWith(this.#text)) {
        return pieces;
      } else {
        this.#tokens = [];
      }
    }
    return this.#text ? [...pieces, ...this.end()] : pieces;
  }

  /** What is left when nothing more comes. */
  end() {
    const rest = this.#text;
    this.#text = "";
    return rest ? [[rest, this.#tokens[0] ?? null]] : [];
  }
}
