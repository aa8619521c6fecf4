# [Service] of the agent, without what depends on the configuration. The unit for other distributions
# (packaging/systemd/haulout.service) says the same; a test compares them.
{
  Type = "notify";
  NotifyAccess = "main";
  WatchdogSec = 60;
  TimeoutStartSec = 60;
  Restart = "always";
  RestartSec = 1;

  DynamicUser = true;
  User = "haulout";
  Group = "haulout";
  StateDirectory = "haulout";
  CacheDirectory = "haulout";
  RuntimeDirectory = "haulout";
  StateDirectoryMode = "0700";
  CacheDirectoryMode = "0700";
  # Nix reads /run/haulout/nix.conf, as any user.
  RuntimeDirectoryMode = "0755";
  RuntimeDirectoryPreserve = true;
  UMask = "0077";

  ProtectSystem = "strict";
  ProtectHome = true;
  PrivateTmp = true;
  PrivateDevices = true;
  PrivateMounts = true;
  PrivateUsers = true;
  DevicePolicy = "closed";
  ProtectKernelModules = true;
  ProtectKernelTunables = true;
  ProtectKernelLogs = true;
  ProtectControlGroups = true;
  ProtectClock = true;
  ProtectHostname = true;
  # Not ProcSubset=pid: /proc/stat tells whether the machine has time to compress.
  ProtectProc = "invisible";
  NoNewPrivileges = true;
  CapabilityBoundingSet = "";
  AmbientCapabilities = "";
  # Netlink: the list of interfaces, and news about them.
  RestrictAddressFamilies = [
    "AF_UNIX"
    "AF_INET"
    "AF_INET6"
    "AF_NETLINK"
  ];
  RestrictNamespaces = true;
  RestrictRealtime = true;
  RestrictSUIDSGID = true;
  RemoveIPC = true;
  LockPersonality = true;
  MemoryDenyWriteExecute = true;
  SystemCallArchitectures = "native";
  SystemCallFilter = [
    "@system-service"
    "~@privileged"
  ];
  SystemCallErrorNumber = "EPERM";

  # A guest on the machine: builds and desktops come first.
  LimitNOFILE = 65536;
  TasksMax = 256;
  MemoryHigh = "1G";
  Nice = 10;
  CPUWeight = 50;
  IOSchedulingClass = "best-effort";
  IOSchedulingPriority = 7;
}
