// Passwords that are tried first. Compared in lower case; BASES also with digits and signs around them.
const words = (text: string): ReadonlySet<string> => new Set(text.trim().split(/\s+/));

// Whole passwords of ten characters or more that people choose again and again.
export const COMMON = words(`
  1234567890 12345678910 0123456789 0987654321 1234567891 12345678901 123456789a 123456789q 123456789z 123456789m a123456789 q123456789
  1234554321 1234512345 123123123123 1231231231 123321123321 1122334455 112233445566 1111111111 11111111111 111111111111 0000000000
  00000000000 2222222222 3333333333 4444444444 5555555555 6666666666 7777777777 8888888888 9999999999 1212121212 1010101010 1020304050
  9876543210 98765432100 987654321a 987654321q 1357924680 2468101214 3141592653 3141592654 31415926535 2718281828 1234qwerasdf 1234qwertyui
  123qweasdzxc 123qwe123qwe qwe123qwe123 qweasd123456 qweasdzxc123 qweasdzxcv asdfghjkl123 asdfghjkl1 asdfghjkl; asdf1234567 asdfasdfasdf
  asdfqwer1234 asdasdasdasd zxcvbnm123 zxcvbnm1234 zxcvbnm,./ zxcvbnmasd zxcasdqwe123 qazwsxedcrfv qazwsxedc123 qazwsx12345 qaz123wsx456
  1qaz2wsx3edc 1qaz2wsx3edc4rfv 1qazxsw23edc 1qaz@wsx3edc 1q2w3e4r5t 1q2w3e4r5t6y 1q2w3e4r5t6y7u 1qa2ws3ed4rf q1w2e3r4t5 q1w2e3r4t5y6 zaq12wsxcde3
  zaq1zaq1zaq1 zaq1xsw2cde3 !qaz2wsx3edc !qaz@wsx#edc 1234!@#$qwer !@#$%^&*() !@#$%^1234 1234567890- 1234567890qwe 1234567890qwerty
  qwertyuiop qwertyuiop1 qwertyuiop12 qwertyuiop123 qwertyuiop[] qwerty12345 qwerty123456 qwerty1234567 qwerty12345678 qwerty123456789
  qwerty1234567890 qwerty123qwerty qwertyqwerty qwertyasdfgh qwertyasdf qwertyui123 qwerty2020 qwerty2021 qwerty2022 qwerty2023 qwerty2024
  qwerty2025 qwertzuiop qwertz12345 qwertz123456 azertyuiop azertyuiop1 azerty12345 azerty123456 poiuytrewq lkjhgfdsa1 mnbvcxz123
  mnbvcxzlkj ytrewq654321 abcdefghij abcdefghijk abcdefghijkl abcdefgh123 abcdefgh12 abcdefg123 abcdef1234 abcdef12345 abcdef123456
  abc1234567 abc12345678 abc123456789 abc1234567890 abcd123456 abcd12345678 abcde12345 abcde123456 abc123abc123 abcabcabcabc a1b2c3d4e5
  a1b2c3d4e5f6 a1s2d3f4g5 a12345678910 aa12345678 aa123456789 aaaaaaaaaa aaaaaaaaaaaa aaaaa11111 asd123456789 as123456789 zz123456789
  passwordpassword password12 password123 password1234 password12345 password123456 password1234567890 passwordabc password1! password12!
  password123! password@123 password@1234 password!23 password#123 password_123 password.123 password2020 password2021 password2022
  password2023 password2024 password2025 password2026 passw0rd12 passw0rd123 passw0rd1234 p@ssw0rd12 p@ssw0rd123 p@ssw0rd1234 p@ssword123
  p@ssw0rd123! p@$$w0rd123 p@$$word123 pa55w0rd123 pa$$word123 pass123456 pass1234567 pass12345678 passpass123 passpasspass passphrase
  passphrase1 mypassword mypassword1 mypassword123 thepassword newpassword newpassword1 oldpassword nopassword nopassword1 yourpassword
  badpassword goodpassword mypass1234 secretpassword secretpass secret12345 secret123456 topsecret1 topsecret123 supersecret supersecret1
  administrator administrator1 admin12345 admin123456 admin1234567 admin12345678 admin123admin adminadmin adminadmin1 admin@1234 admin@12345
  administrador administrateur root123456 rootroot123 rootpassword roottoor123 toortoor123 superuser1 superuser123 sysadmin123 guest12345
  guest123456 guestguest testtest12 testtest123 test123456 test1234567 test12345678 test123test testtesttest testpassword testing123
  testing1234 testing12345 tester12345 user123456 user1234567 user12345678 useruser123 username12 username123 userpassword demo123456
  demodemo123 demopassword default123 default1234 defaultpassword changeme12 changeme123 changeme1234 changeme123! changemenow changeit123
  changethis changethis1 letmein123 letmein1234 letmein12345 letmeinnow letmeinplease letmein2024 welcome123 welcome1234 welcome12345
  welcome123! welcome@123 welcome2020 welcome2021 welcome2022 welcome2023 welcome2024 welcome2025 welcomehome welcometo1 iloveyou12
  iloveyou123 iloveyou1234 iloveyou12345 iloveyou2020 iloveyou2024 iloveyouforever iloveyousomuch iloveyoubaby iloveu1234 iloveme123
  iloveme1234 ilovegod123 ilovejesus ilovejesus1 ilovemymom ilovemusic ilovecats1 ilovedogs1 loveyou123 loveme1234 lovelove123 lovelovelove
  mylove1234 mybabygirl1 babygirl12 babygirl123 sweetheart sweetheart1 sweetheart12 beautiful1 beautiful12 beautiful123 gorgeous123
  princess12 princess123 princess1234 sunshine12 sunshine123 sunshine1234 butterfly1 butterfly12 butterfly123 chocolate1 chocolate12
  chocolate123 strawberry strawberry1 strawberry123 blueberry1 watermelon watermelon1 pineapple1 pineapple123 cheesecake cheesecake1
  football12 football123 football1234 footballer baseball12 baseball123 basketball basketball1 basketball23 volleyball volleyball1
  skateboard skateboard1 snowboard1 liverpool1 liverpool12 liverpool123 manchester manchester1 manchesterunited manunited1 chelsea123
  chelseafc1 arsenal123 arsenal1234 barcelona1 barcelona10 barcelona123 realmadrid realmadrid1 juventus123 juventus1897 ronaldo123
  cristiano7 cristianoronaldo superman12 superman123 superman1234 batman1234 batman12345 spiderman1 spiderman12 spiderman123 wolverine1
  captainamerica starwars12 starwars123 starwars1234 skywalker1 darthvader darthvader1 lordoftherings harrypotter harrypotter1 hogwarts123
  pokemon123 pokemon1234 pikachu123 minecraft1 minecraft12 minecraft123 fortnite123 counterstrike callofduty callofduty1 playstation
  playstation2 playstation3 nintendo64 nintendo123 worldofwarcraft warcraft123 dragonball dragonball1 dragonballz naruto1234 naruto12345
  dragon1234 dragon12345 dragon123456 monkey1234 monkey12345 monkey123456 shadow1234 shadow12345 master1234 master12345 master123456
  mustang123 mustang1967 ferrari123 mercedes123 mercedesbenz lamborghini harleydavidson motorcycle computer12 computer123 computer1234
  internet12 internet123 internet1234 samsung123 samsung1234 motorola123 blackberry blackberry1 microsoft1 microsoft123 windows123
  windows1234 facebook12 facebook123 facebook1234 google1234 google12345 linkedin123 linkedin1234 instagram1 whatsapp123 youtube123
  trustno1234 trustnoone nothing123 whatever12 whatever123 whatever1234 fuckyou123 fuckyou1234 motherfucker asshole123 bullshit123
  jesuschrist jesuschrist1 jesus12345 jesusislord jesusloves godisgood1 godislove1 christian1 blessed123 freedom123 freedom1234 liberty123
  america123 australia1 california california1 washington washington1 philadelphia newyork123 newyorkcity pittsburgh cincinnati chicago123
  michael123 michelle123 michelle12 jennifer12 jennifer123 jessica123 elizabeth1 elizabeth123 alexander1 alexander123 alexandra1 christopher
  christopher1 christina1 christine1 stephanie1 stephanie123 charlie123 charlotte1 patrick123 anthony123 nicholas123 benjamin123 september1
  september11 november11 december25 december12 spring2024 summer2020 summer2021 summer2022 summer2023 summer2024 summer2025 winter2020
  winter2021 winter2022 winter2023 winter2024 winter2025 autumn2024 january2024 monday1234 friday1234 company123 company1234 business123
  office1234 service123 support123 manager123 security123 temporary1 temporary123 correcthorse correcthorsebatterystaple
  correct-horse-battery-staple opensesame opensesame1 abracadabra abracadabra1 supercalifragilistic helloworld helloworld1 helloworld123
  hellohello hellohello1 hello12345 hello123456 hellokitty hellokitty1 hello123hello goodmorning goodmorning1 thankyou123 forgetmenot
  idontknow1 idontknow123 mississippi metallica1 metallica123 slipknot666 nirvana1234 greenday123 linkinpark linkinpark1 michaeljackson
  justinbieber onedirection rockandroll rockstar123 guitar1234 guitarhero cocacola123 cocacola12 jackdaniels budweiser1 marlboro123
  scooter123 thunder123 lightning1 blackcat123 midnight123 moonlight1 starlight1 firefighter secretagent gangster123 killer1234 killer12345
  hunter1234 hunter12345 ninja12345 samurai123 assassin123 phoenix123 chicken123 elephant123 dolphins123 steelers123 lakers1234 yankees123
  redsox2004 patriots12 packers123 cowboys123 cowboys1234 matrix1234 terminator terminator1 jamesbond007 jamesbond1 letmepass1 access1234
  access14me login12345 login123456 loginlogin database123 oracle1234 oracle12345 mysql12345 postgres123 postgres1234 raspberry1 ubuntu1234
  kubernetes kubernetes1 jenkins123 grafana123 elastic123 rabbitmq123 docker1234 millrace12 millrace123 millrace1234 millrace123!
`);

// Words that a password must not consist of, whatever digits and signs stand before and after them.
export const BASES = words(`
  password passwort motdepasse contrasena passw pass passphrase mypassword secret topsecret letmein welcome iloveyou admin administrator
  root user username guest login default changeme changeit test testing tester demo example sample qwerty qwertz azerty asdf asdfgh abc abcd
  abcdef monkey dragon master shadow sunshine princess football baseball superman batman hello spring summer autumn fall winter january
  february march april may june july august september october november december monday tuesday wednesday thursday friday saturday sunday
  company office temporary temp internet computer server service support manager security access account database millrace workspace
  automation trustno freedom whatever starwars pokemon love lovely flower charlie michael jordan jessica ashley
`);
