# A stand-in for the few functions of nixpkgs' library that the module uses, so that the module can be evaluated
# where no nixpkgs can be had. It keeps the rules that matter for one module: conditions are pushed into the
# definitions they guard, the smallest priority number wins (mkForce 50, plain 100, mkDefault 1000, an option's own
# default 1500), lists are merged in the order of mkBefore 500, plain 1000, mkAfter 1500, and an unknown option or a value
# of the wrong type is an error. It is not the real thing: eval.nix takes nixpkgs' own library with
# `--arg lib '<nixpkgs/lib>'` and must give the same answer.
let
  inherit (builtins)
    attrNames
    concatLists
    concatMap
    elem
    filter
    foldl'
    head
    isAttrs
    isBool
    isInt
    isList
    isString
    length
    listToAttrs
    mapAttrs
    sort
    toString
    typeOf
    ;

  # ---- definitions: a value with its priority and its place in a list

  wrapped = kind: value: isAttrs value && (value._type or null) == kind;

  # All values that a definition comes down to, with priority and order; what a false condition guards is gone.
  spread =
    priority: order: value:
    if wrapped "merge" value then
      concatMap (spread priority order) value.contents
    else if wrapped "if" value then
      (if value.condition then spread priority order value.content else [ ])
    else if wrapped "override" value then
      spread value.priority order value.content
    else if wrapped "order" value then
      spread priority value.order value.content
    else
      [ { inherit priority order value; } ];

  # Those that count, in order.
  strongest =
    definitions:
    let
      all = concatMap (spread 100 1000) definitions;
      least = foldl' (low: one: if one.priority < low then one.priority else low) 2000 all;
    in
    sort (a: b: a.order < b.order) (filter (one: one.priority == least) all);

  values = definitions: map (one: one.value) (strongest definitions);

  # The definitions of one attribute: a condition or priority around the whole set is around each attribute.
  attribute =
    name: definition:
    if wrapped "merge" definition then
      concatMap (attribute name) definition.contents
    else if definition ? _type && definition ? content then
      map (inner: definition // { content = inner; }) (attribute name definition.content)
    else if definition ? ${name} then
      [ definition.${name} ]
    else
      [ ];

  names =
    definition:
    if wrapped "merge" definition then
      concatMap names definition.contents
    # Only looked into when it holds: the attribute names of what is not there do not matter.
    else if definition ? _type && definition ? content then
      names definition.content
    else
      attrNames definition;

  distinct = foldl' (seen: one: if elem one seen then seen else seen ++ [ one ]) [ ];

  # ---- types: how definitions of one option become its value

  plain = name: check: {
    inherit name;
    merge =
      place: definitions:
      let
        given = distinct (values definitions);
      in
      if given == [ ] then
        throw "the option `${place}' is used but not defined"
      else if length given > 1 then
        throw "the option `${place}' has conflicting definitions"
      else if check (head given) then
        head given
      else
        throw "the option `${place}' is not of type ${name} but ${typeOf (head given)}";
  };

  types = rec {
    bool = plain "bool" isBool;
    int = plain "int" isInt;
    str = plain "str" isString;
    lines = {
      name = "lines";
      merge = _: definitions: builtins.concatStringsSep "\n" (values definitions);
    };
    package = plain "package" (value: isAttrs value && (value.type or null) == "derivation");
    port = plain "port" (value: isInt value && value >= 0 && value <= 65535);
    nullOr = inner: {
      name = "null or ${inner.name}";
      merge =
        place: definitions:
        if builtins.all (value: value == null) (values definitions) then null else inner.merge place definitions;
    };
    listOf = inner: {
      name = "list of ${inner.name}";
      merge =
        place: definitions:
        let
          lists = values definitions;
        in
        if builtins.all isList lists then
          map (one: inner.merge "${place}.*" [ one ]) (concatLists lists)
        else
          throw "the option `${place}' is not a list";
    };
    attrsOf = inner: {
      name = "attributes of ${inner.name}";
      merge =
        place: definitions:
        let
          of = name: concatMap (attribute name) definitions;
          given = filter (name: strongest (of name) != [ ]) (distinct (concatMap names definitions));
        in
        listToAttrs (
          map (name: {
            inherit name;
            value = inner.merge "${place}.${name}" (of name);
          }) given
        );
    };
    # Whatever TOML or a unit file can say.
    anything = {
      name = "anything";
      merge =
        place: definitions:
        let
          given = values definitions;
          isSet = value: isAttrs value && (value.type or null) != "derivation";
        in
        if builtins.all isSet given then
          (attrsOf anything).merge place definitions
        else if builtins.all isList given then
          concatLists given
        else
          (plain "anything" (_: true)).merge place definitions;
    };
    submodule = module: {
      name = "submodule";
      merge = place: definitions: tree place (module.options or { }) (module.freeformType or null) definitions;
    };
  };

  # ---- options

  isOption = option: (option._type or null) == "option";

  tree =
    place: options: freeform: definitions:
    let
      at = name: if place == "" then name else "${place}.${name}";
      of = name: concatMap (attribute name) definitions;
      declared = mapAttrs (
        name: option:
        if !isOption option then
          # Inside a set that takes more than what is declared, the nested ones do too.
          tree (at name) option freeform (of name)
        else
          option.type.merge (at name) (
            of name
            ++ (
              if option ? default then
                [
                  {
                    _type = "override";
                    priority = 1500;
                    content = option.default;
                  }
                ]
              else
                [ ]
            )
          )
      ) options;
      others = filter (name: !(options ? ${name})) (distinct (concatMap names definitions));
      # One that only a false condition names is no mistake.
      unknown = filter (name: strongest (of name) != [ ]) others;
      free = listToAttrs (
        map (name: {
          inherit name;
          value = freeform.merge (at name) (of name);
        }) unknown
      );
    in
    if unknown == [ ] then
      declared
    else if freeform == null then
      throw "the option `${at (head unknown)}' does not exist"
    else
      free // declared;

  merged =
    a: b:
    a
    // mapAttrs (
      name: option: if a ? ${name} && !isOption option then merged a.${name} option else option
    ) b;

  evalModules =
    {
      modules,
      specialArgs ? { },
    }:
    let
      load =
        module:
        let
          loaded = if builtins.isPath module then import module else module;
          value = if builtins.isFunction loaded then loaded (specialArgs // { inherit config lib; }) else loaded;
        in
        if value ? options || value ? config then value else { config = value; };
      all = map load modules;
      config = tree "" (foldl' merged { } (map (module: module.options or { }) all)) null (
        map (module: module.config or { }) all
      );
    in
    {
      inherit config;
    };

  lib = rec {
    inherit types evalModules;
    mkOption = option: option // { _type = "option"; };
    mkEnableOption =
      what:
      mkOption {
        type = types.bool;
        default = false;
        description = "Whether to enable ${what}.";
      };
    mkPackageOption =
      pkgs: name: _:
      mkOption {
        type = types.package;
        default = pkgs.${name};
      };
    mkMerge = contents: {
      _type = "merge";
      inherit contents;
    };
    mkIf = condition: content: {
      _type = "if";
      inherit condition content;
    };
    mkOverride = priority: content: {
      _type = "override";
      inherit priority content;
    };
    mkDefault = mkOverride 1000;
    mkForce = mkOverride 50;
    mkOrder = order: content: {
      _type = "order";
      inherit order content;
    };
    mkBefore = mkOrder 500;
    mkAfter = mkOrder 1500;
    optional = condition: value: if condition then [ value ] else [ ];
    optionalAttrs = condition: set: if condition then set else { };
    genAttrs =
      of: make:
      listToAttrs (
        map (name: {
          inherit name;
          value = make name;
        }) of
      );
    filterAttrs =
      keep: set:
      listToAttrs (
        concatMap (name: optional (keep name set.${name}) { inherit name; value = set.${name}; }) (attrNames set)
      );
    mapAttrsToList = make: set: map (name: make name set.${name}) (attrNames set);
    getExe = package: "${package}/bin/${package.meta.mainProgram}";
    concatMapStrings = make: list: builtins.concatStringsSep "" (map make list);
    inherit (builtins) toString;
  };
in
lib
