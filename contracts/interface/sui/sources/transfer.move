/// Giving objects to somebody, or to everybody.
module sui::transfer;

public fun share_object<T: key>(obj: T) { share_object_impl(obj) }

public(package) native fun share_object_impl<T: key>(obj: T);
