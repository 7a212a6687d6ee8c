from flywheel.runtime.main import main

main()
