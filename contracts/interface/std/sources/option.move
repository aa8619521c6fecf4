/// A value or none.
module std::option;

public struct Option<Element> has copy, drop, store { vec: vector<Element> }

public fun none<Element>(): Option<Element> { Option { vec: vector[] } }

public fun some<Element>(e: Element): Option<Element> { Option { vec: vector[e] } }

public fun is_some<Element>(t: &Option<Element>): bool { t.vec.length() != 0 }
