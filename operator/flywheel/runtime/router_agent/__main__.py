from flywheel.runtime.router_agent.main import main

main()
