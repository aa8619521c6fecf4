/// Growable arrays. The natives are instructions of the virtual machine.
#[defines_primitive(vector)]
module std::vector;

#[bytecode_instruction]
public native fun empty<Element>(): vector<Element>;
#[bytecode_instruction]
public native fun length<Element>(v: &vector<Element>): u64;
#[syntax(index)]
#[bytecode_instruction]
public native fun borrow<Element>(v: &vector<Element>, i: u64): &Element;
#[syntax(index)]
#[bytecode_instruction]
public native fun borrow_mut<Element>(v: &mut vector<Element>, i: u64): &mut Element;
#[bytecode_instruction]
public native fun push_back<Element>(v: &mut vector<Element>, e: Element);
#[bytecode_instruction]
public native fun pop_back<Element>(v: &mut vector<Element>): Element;
#[bytecode_instruction]
public native fun destroy_empty<Element>(v: vector<Element>);
#[bytecode_instruction]
public native fun swap<Element>(v: &mut vector<Element>, i: u64, j: u64);

/// Takes out element `i` and closes the gap by moving the last element there.
public fun swap_remove<Element>(v: &mut vector<Element>, i: u64): Element {
    let last = v.length() - 1;
    v.swap(i, last);
    v.pop_back()
}
