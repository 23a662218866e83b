"""The verbs: which module serves each (``module`` or ``module:function``), and one line about it."""

from __future__ import annotations

VERBS = {
    "up": "up", "down": "down", "ps": "ps", "logs": "logs", "exec": "exec", "run": "run", "config": "config", "build": "build",
    "restart": "lifecycle:restart", "stop": "lifecycle:stop", "start": "lifecycle:start", "pull": "pull", "create": "create",
    "rm": "lifecycle:rm", "kill": "lifecycle:kill", "scale": "scale", "watch": "watch", "cp": "cp", "ls": "ls",
    "images": "images", "port": "port", "top": "top", "events": "events", "wait": "wait", "stats": "stats",
    "pause": "lifecycle:pause", "unpause": "lifecycle:unpause", "attach": "attach", "version": "version",
    "volumes": "volumes", "push": "push", "export": "export", "commit": "commit", "plan": "plan", "graph": "graph",
    "info": "info", "login": "login", "logout": "logout", "completion": "completion", "convert": "config",
}
HIDDEN = {"convert"}

GROUPS = {
    "image": {
        "ls": "image:ls", "pull": "image:pull", "push": "image:push", "tag": "image:tag", "rm": "image:rm",
        "inspect": "image:inspect", "history": "image:history", "save": "image:save", "load": "image:load",
        "import": "image:import", "prune": "image:prune", "from-host": "image:from_host", "bootstrap": "image:bootstrap",
        "build": "image_build",
    },
    "container": {
        "run": "container_run:run", "create": "container_run:create", "ls": "container:ls", "inspect": "container:inspect",
        "logs": "container:logs", "start": "container:start", "stop": "container:stop", "restart": "container:restart",
        "kill": "container:kill", "rm": "container:rm", "exec": "container:exec", "attach": "container:attach",
        "cp": "container:cp", "commit": "container:commit", "export": "container:export", "diff": "container:diff",
        "prune": "container:prune", "pause": "container:pause", "unpause": "container:unpause", "rename": "container:rename",
        "stats": "container:stats", "top": "container:top", "port": "container:port", "wait": "container:wait",
        "update": "container:update",
    },
    "network": {
        "ls": "network:ls", "create": "network:create", "inspect": "network:inspect", "rm": "network:rm",
        "prune": "network:prune", "connect": "network:connect", "disconnect": "network:disconnect",
    },
    "volume": {
        "ls": "volume:ls", "create": "volume:create", "inspect": "volume:inspect", "rm": "volume:rm", "prune": "volume:prune",
        "export": "volume:export", "import": "volume:import",
    },
    "system": {"df": "system:df", "prune": "system:prune", "check": "system:check", "info": "info", "events": "events:system",
               "shutdown": "system:shutdown"},
    "builder": {"build": "image_build"},
}

SUMMARIES = {
    "up": "Create and start containers, converging to the file",
    "down": "Stop and remove containers and networks",
    "ps": "List containers", "logs": "Print or follow the output of containers",
    "exec": "Run a command in a running container", "run": "Run a one-off container of a service",
    "config": "Validate, resolve and print the compose file", "convert": "Same as config",
    "build": "Build the images of services", "restart": "Restart containers", "stop": "Stop containers",
    "start": "Start existing containers", "pull": "Fetch the images of services", "create": "Create containers, start nothing",
    "rm": "Remove stopped containers", "kill": "Send a signal to containers", "scale": "Set numbers of replicas",
    "watch": "Update running services when files change", "cp": "Copy files in or out of a container",
    "ls": "List projects", "images": "List the images of the project's containers", "port": "Print a published port",
    "top": "Show processes", "events": "Stream what happens to containers", "wait": "Block until containers stop",
    "stats": "Show CPU, memory and IO use", "pause": "Freeze containers", "unpause": "Thaw containers",
    "attach": "Connect to a running container", "version": "Print the version", "volumes": "List the project's volumes",
    "push": "Push the images of services", "export": "Export a container's file system as a tar",
    "commit": "Make an image from a container", "plan": "Show what up would do, and why",
    "graph": "Draw the dependency graph", "info": "Show what this machine offers", "login": "Log in to a registry",
    "logout": "Forget a registry's credentials", "completion": "Print a shell completion script",
    "image ls": "List images", "image pull": "Fetch an image", "image push": "Send an image to a registry",
    "image tag": "Give an image another name", "image rm": "Remove names and images",
    "image inspect": "Show an image as JSON", "image history": "Show how an image was made",
    "image save": "Write images to a tar", "image load": "Read images from a tar", "image import": "Make an image from a root file system",
    "image prune": "Remove unused images", "image from-host": "Make an image from programs of this machine",
    "image bootstrap": "Make an image with mmdebstrap or debootstrap", "image build": "Build an image from a Dockerfile",
    "container run": "Create and start a container", "container create": "Create a container",
    "container ls": "List containers", "container inspect": "Show containers as JSON",
    "network ls": "List networks", "network create": "Create a network", "volume ls": "List volumes",
    "volume create": "Create a volume", "system df": "Show disk use", "system prune": "Remove what is unused",
    "system check": "Verify the image store", "system info": "Show what this machine offers",
    "system shutdown": "End the daemon (containers run on)",
}
