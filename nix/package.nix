# The package, as nixpkgs would build it. `src` is the whole repository: the tests need none of it, the build embeds
# the unit files of packaging/.
{
  lib,
  rustPlatform,
  installShellFiles,
  stdenv,
}:
let
  manifest = (lib.importTOML ../Cargo.toml).workspace.package;
in
rustPlatform.buildRustPackage {
  pname = "haulout";
  inherit (manifest) version;

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../Cargo.toml
      ../Cargo.lock
      ../clippy.toml
      ../rustfmt.toml
      ../crates
      ../tests
      ../simulations
      ../contracts
      ../packaging
    ];
  };
  cargoLock.lockFile = ../Cargo.lock;

  cargoBuildFlags = [
    "--package"
    "haulout"
  ];
  # The whole test suite wants root and network namespaces; these crates do without.
  cargoTestFlags = [
    "--package"
    "haulout-nix"
    "--package"
    "haulout-swarm"
    "--package"
    "redstuff"
  ];

  nativeBuildInputs = [ installShellFiles ];
  postInstall = ''
    install -Dm644 -t $out/lib/systemd/system packaging/systemd/haulout.socket packaging/systemd/haulout.service
    substituteInPlace $out/lib/systemd/system/haulout.service --replace-fail @haulout@ $out/bin/haulout
  ''
  + lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
    $out/bin/haulout man --out man
    installManPage man/*
    installShellCompletion --cmd haulout \
      --bash <($out/bin/haulout completions bash) \
      --fish <($out/bin/haulout completions fish) \
      --zsh <($out/bin/haulout completions zsh)
  '';

  meta = {
    description = "Peer-to-peer cache for Nix on the local network";
    homepage = manifest.repository;
    license = with lib.licenses; [
      mit
      asl20
    ];
    mainProgram = "haulout";
    platforms = lib.platforms.linux;
  };
}
