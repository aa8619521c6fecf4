/// Identities of objects.
module sui::object;

public struct ID has copy, drop, store { bytes: address }

public struct UID has store { id: ID }

public fun new(ctx: &mut TxContext): UID {
    let bytes = ctx.fresh_object_address();
    record_new_uid(bytes);
    UID { id: ID { bytes } }
}

public fun delete(id: UID) {
    let UID { id: ID { bytes } } = id;
    delete_impl(bytes)
}

public fun id<T: key>(obj: &T): ID { borrow_uid(obj).id }

native fun borrow_uid<T: key>(obj: &T): &UID;
native fun delete_impl(id: address);
native fun record_new_uid(id: address);
