"""The words that the synthetic sample is made of: agencies, places, names of firms, and phrases of technologies."""

from __future__ import annotations

AGENCIES = (  # agency, branches (or none), its share of the awards
    ("Department of Defense", ("Army", "Navy", "Air Force", "Missile Defense Agency", "Defense Advanced Research Projects Agency"), 0.45),
    ("Department of Health and Human Services", ("National Institutes of Health", "Centers for Disease Control and Prevention"), 0.22),
    ("National Aeronautics and Space Administration", ("",), 0.11),
    ("Department of Energy", ("Office of Science", "ARPA-E"), 0.09),
    ("National Science Foundation", ("",), 0.08),
    ("Department of Agriculture", ("",), 0.03),
    ("Department of Homeland Security", ("Science and Technology Directorate",), 0.02),
)  # fmt: skip

PLACES = (  # city, state, first digits of its ZIP codes
    ("Boulder", "CO", "803"), ("Littleton", "CO", "801"), ("Cambridge", "MA", "021"), ("Billerica", "MA", "018"),
    ("Huntsville", "AL", "358"), ("San Diego", "CA", "921"), ("Torrance", "CA", "905"), ("Austin", "TX", "787"),
    ("Arlington", "VA", "222"), ("Blacksburg", "VA", "240"), ("Columbia", "MD", "210"), ("Dayton", "OH", "454"),
    ("Ann Arbor", "MI", "481"), ("Princeton", "NJ", "085"), ("Ithaca", "NY", "148"), ("Seattle", "WA", "981"),
    ("Tucson", "AZ", "857"), ("Madison", "WI", "537"), ("Raleigh", "NC", "276"), ("San Juan", "PR", "009"),
)  # fmt: skip

STARTS = [
    "Al",
    "Bren",
    "Cor",
    "Dex",
    "El",
    "Fal",
    "Gan",
    "Hel",
    "Iso",
    "Jun",
    "Kel",
    "Lum",
    "Mar",
    "Nex",
    "Or",
    "Pra",
    "Quan",
    "Ril",
    "Sol",
    "Tor",
    "Ul",
    "Ven",
    "Wex",
    "Xan",
    "Yar",
    "Zen",
    "Ath",
    "Bor",
    "Cal",
    "Den",
]
MIDDLES = ["a", "e", "i", "o", "u", "ari", "eno", "ila", "oma", "uri", "ane", "eti"]
ENDS = [
    "dyne",
    "lux",
    "tek",
    "mer",
    "ston",
    "vex",
    "ra",
    "cor",
    "wave",
    "gen",
    "loc",
    "phos",
    "tron",
    "via",
    "plex",
    "ris",
    "zan",
    "nor",
    "quil",
    "bect",
]
TRADES = [
    "Photonics",
    "Technologies",
    "Systems",
    "Research",
    "Dynamics",
    "Materials",
    "Robotics",
    "Sciences",
    "Instruments",
    "Analytics",
    "Aerospace",
    "Biosciences",
    "Engineering",
    "Labs",
    "Innovations",
    "Sensors",
    "Networks",
    "Therapeutics",
    "Energy",
    "International",
]
SUFFIXES = (", Inc.", " Inc", ", LLC", " LLC", " Corporation", " Corp.", ", Ltd.", " Co.", " Incorporated", "")

FIRST_NAMES = [
    "Ada",
    "Ben",
    "Chloe",
    "Dan",
    "Eva",
    "Finn",
    "Gita",
    "Hugo",
    "Ines",
    "Jon",
    "Kira",
    "Leo",
    "Mina",
    "Noor",
    "Otto",
    "Pia",
    "Quin",
    "Rosa",
    "Sven",
    "Tara",
]
LAST_NAMES = [
    "Abel",
    "Brook",
    "Castle",
    "Dorsey",
    "Ellis",
    "Frost",
    "Garner",
    "Hale",
    "Ibarra",
    "Jansen",
    "Kern",
    "Lowell",
    "Moreau",
    "Nagel",
    "Ortiz",
    "Park",
    "Quist",
    "Rhodes",
    "Sato",
    "Thorne",
]

STREETS = [
    "Main Street",
    "Industrial Way",
    "Research Drive",
    "Oak Avenue",
    "Technology Parkway",
    "Mill Road",
    "Airport Boulevard",
]

# One area of critical and emerging technologies a line: its id, then phrases that speak of it.
AREAS = {
    area: tuple(phrases.split(", "))
    for area, phrases in (
        line.split(": ")
        for line in """\
advanced_computing: high performance computing, exascale simulation, parallel processing architecture, edge computing hardware
advanced_engineering_materials: metamaterials, ceramic matrix composites, high entropy alloys, self-healing coatings
advanced_gas_turbine_engine_technologies: gas turbine engine, turbine blade cooling, combustor liner, rotating detonation engine
advanced_manufacturing: additive manufacturing, laser powder bed fusion, digital twin of the production line, smart manufacturing
advanced_and_networked_sensing_and_signature_management: radar signature reduction, networked sensing, infrared signature management, synthetic aperture radar
advanced_nuclear_energy_systems: small modular reactor, molten salt reactor, nuclear fuel cladding, fusion energy confinement
artificial_intelligence: machine learning, deep neural network, natural language processing, computer vision model
autonomous_systems: unmanned aerial vehicle, autonomous underwater vehicle, swarm of drones, autonomous navigation
biotechnologies: gene editing, monoclonal antibody, synthetic biology, vaccine delivery platform
communication_and_networking_technologies: software defined radio, optical communication terminal, 5G waveform, mesh network protocol
directed_energy: high energy laser, high power microwave, laser beam control, directed energy weapon
financial_technologies: blockchain ledger, digital payment fraud detection, distributed ledger settlement, credit risk analytics
human_machine_interfaces: augmented reality display, brain computer interface, haptic feedback glove, wearable exoskeleton
hypersonics: hypersonic glide vehicle, scramjet inlet, thermal protection system at Mach 7, boundary layer transition
integrated_sensing_and_cyber: cyber intrusion detection, malware reverse engineering, zero trust architecture, firmware vulnerability analysis
quantum_information_science: quantum sensing, entangled photon source, superconducting qubit, quantum key distribution
renewable_energy_generation_and_storage: lithium sulfur battery, perovskite solar cell, wind turbine control, grid scale energy storage
semiconductors_and_microelectronics: gallium nitride transistor, silicon carbide wafer, radiation hardened integrated circuit, focal plane readout circuit
space_technologies_and_systems: cubesat propulsion, satellite servicing, lunar regolith processing, spacecraft attitude control
trusted_ai_and_autonomy: explainable artificial intelligence, adversarial robustness of models, assured autonomy, verification of learned controllers
integrated_network_systems_of_systems: joint all domain command and control, system of systems integration, cross domain data fabric, interoperable battle management
""".splitlines()
    )
}  # fmt: skip

PROBLEMS = (
    "Current solutions are too heavy, too slow and too costly for the field",
    "Operators lack a reliable way to measure what matters in real time",
    "Existing devices fail under the temperatures of the intended use",
    "No commercial product meets the requirements of the topic",
    "Manual inspection takes weeks and misses a third of the defects",
)
PLANS = (
    "The team will design, build and test a prototype and compare it with the state of the art",
    "We will model the approach, fabricate samples and characterise them in the laboratory",
    "The effort matures the approach from a laboratory demonstration to a relevant environment",
    "Three design iterations are planned, each evaluated by independent users",
)
GAINS = (
    "Commercial uses include inspection, transport and health care",
    'Customers have asked for "a box that simply works", and letters of support are attached',
    "The market is estimated at $1.2 billion, growing 8% a year",
    "Success shortens the time from request to result from months to days",
)
