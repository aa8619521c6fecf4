#[test_only]
module std::unit_test;

public native fun poison();
public native fun destroy<T>(x: T);
